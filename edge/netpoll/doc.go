// Package netpoll tells when sockets have something to read, so that no goroutine has
// to wait for each of them.
//
// A goroutine parked in a read costs 4 KB of stack and half a KB of bookkeeping, more than
// all else an idle session needs. Here one goroutine waits for all sockets. Its epoll
// descriptor is itself registered with the Go runtime's poller, so that waiting blocks no
// thread. Events are edge-triggered: after an event the owner reads until the kernel has
// no more, which Conn.Drained tells, mostly without a further system call.
//
// Where there is no epoll, or a conn has no descriptor of its own (TLS, in-memory
// pipes), Add says so and the owner reads in a goroutine as usual.
package netpoll
