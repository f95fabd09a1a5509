// Package muster is the Go client of Muster: it says who is there.
//
//	client, err := muster.Dial(ctx, "ws://127.0.0.1:8000/v1/ws", muster.Options{
//		Token: token, DeviceID: "laptop-1", Watch: []string{"ann", "bob"},
//	})
//	…
//	for change := range client.View().Changes(ctx) {
//		fmt.Println(change.Kind, change.User, change.Presence.State)
//	}
//
// A [Client] keeps one session alive over as many sockets as that takes: it resumes with
// jittered back-off, declares its watch list and rooms again, answers pings, renews the
// token and moves to another node when asked. A call made while the socket is down
// waits for the next one, until its context ends; every call may safely be sent twice.
//
// The [View] is the state of the watched users. It never goes back (older versions are
// dropped) and it never guesses: a user the cluster cannot answer for keeps the earlier state,
// marked stale, or is unknown. Readers of [View.Changes] and [Room.Changes] may be slow: changes of
// one user that were not read yet become one, so that memory is bounded by the watch list.
//
// The [Outbox] is what was sent to this user while at home or away. The server gives an entry at
// least once, Deliveries gives it exactly once, as long as its [PositionStore] remembers. [Client.Publish] puts an entry
// into the outbox of another user, once, whatever fails meanwhile.
//
// A Client ends by [Client.Bye], [Client.Close] or an error that trying again cannot
// mend; then [Client.Done] is closed and [Client.Err] says why. All methods may be called from
// several goroutines.
package muster
