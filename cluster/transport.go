package cluster

import "io"

// Transport carries messages between nodes. It may lose, double and reorder them, but never change one.
type Transport interface {
	// Start hands over who receives; calls may come before it returns.
	Start(r Receiver)
	// Send never blocks. The messages' memory is shared with raft: they are encoded or
	// copied, never passed on.
	Send(to uint64, ms []Message)
	// SendSnapshot streams rows along with their MsgSnap and calls done once: nil when the receiver has staged them.
	SendSnapshot(m Message, rows io.WriterTo, done func(error))
	// Stop ends all streams; nothing is received after it.
	Stop()
}

// Receiver is an Engine, for its transport.
type Receiver interface {
	Receive(from uint64, ms []Message)
	ReceiveSnapshot(from uint64, m Message, rows io.Reader) error
	Reset(node uint64)     // the stream broke and a redial was refused
	Silent(node uint64)    // pings went unanswered for 700 ms
	Connected(node uint64) // a new stream, or an answer after Silent
}
