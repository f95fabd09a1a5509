// Package stream connects the nodes of a cluster: messages in order with bounded queues, calls, bulk streams,
// and the pings that say who is alive.
//
// # One connection
//
// A pair of nodes shares one gRPC connection; of two, the one with the smaller id dials, unless Peer.Dial says
// otherwise. On it run one stream per class of messages, one for pings and one for calls, so that a class whose receiver is
// slow holds up nobody else: HTTP/2 gives each stream its own window. Either end may call and open bulk streams;
// the one that did not dial asks the other to open the stream for it.
//
// # Epochs
//
// An epoch is one life of that connection. Up begins it and Down ends it, and what one end sent in it the other receives in order and
// without gaps up to some point. When one stream breaks, all do. Down comes after everything received was handed over,
// and at the latest 100 ms after the loss, with what an immediate redial found: a refusal means that the
// process is gone. Reconnecting goes on with a jittered pause of 20 ms to 1 s.
//
// Payloads waiting for one stream leave together in one frame, which is most of what makes small messages cheap. A queue is bounded by
// bytes; Send refuses when it is full and SendWait waits. Behind the queue stand gRPC's windows, so a peer that hangs costs at
// most the queue, and a receiver that blocks stops its sender.
//
// # Alive
//
// Pings go every 200 ms and the node's main loop answers them (Config.Ping), so that a hung disk looks dead. 700 ms without an answer
// are silence; when our own pinging ran more than 200 ms late, that time does not count. The answers carry a note and the clock.
//
// # Who may talk
//
// Keys derives a CA from the cluster's secret: every node computes the same one and makes its own certificate at start. It names node and
// cluster, both ends check it, and a handshake that says otherwise is refused. A node without a
// cluster yet may only make calls to methods that are marked open.
//
// # Relays
//
// With Config.Relay a peer that cannot be dialled is reached through one that is connected with both ends, and dialled on. Up tells it in
// Peer.Via; messages and calls are as ever, bulk streams are not carried. The relay keeps nothing: what does not fit its queue ends the epoch.
//
// # Versions
//
// A handshake carries the versions a build speaks as [min, max]; the highest common one holds for the epoch and stands in each frame.
// Envelopes of unknown form, unknown kinds and classes that only one build has are counted and skipped. All else in a handshake that a build does not know, it ignores.
//
// # Costs
//
// Measured over loopback with mTLS, both ends in one process on two cores: a message of 64 bytes in a stream of them takes
// 0.4 µs of a processor, one of 1 KiB 2.5 µs; a call 180 µs, 57 µs of them a processor's; a bulk stream carries 50 MB/s or more. A connection that carries only pings costs
// 170 KiB and 15 goroutines at each end, and 0.5 ms of a processor a second there; who has hundreds of peers pings them less often.
//
// Raft adapts a Net to what cluster.Engine wants.
package stream
