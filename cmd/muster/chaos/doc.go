// Package chaos breaks a cluster of real server processes on purpose, and judges what its
// clients saw meanwhile.
//
// A campaign starts `muster serve` processes (this binary), each in a network namespace of its own behind a
// router when it runs as root, else on loopback ports; runs a workload through the Go client
// and the HTTP API; injects faults by a plan that its seed decides; heals; and
// hands what was recorded to checkers. They are pure functions over a history: what was
// sent, acknowledged and delivered, what the servers wrote to their audit files, what
// watchers saw against what the campaign itself knows about its sockets. Each of them
// has tests that show it red on a bad history, and each is red on a history in which there
// was nothing to see.
//
// Times in a history are durations since the campaign's start, on the clock of this
// process. The plan is replayable by its seed; the interleaving of processes is not.
package chaos
