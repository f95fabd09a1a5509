// Package row lays out what a shard stores: the keys of its rows, and how a record of
// package presence becomes rows and rows become records again.
//
// A key is a kind byte and components. A string component is its length in one byte and its
// bytes, so that no identity is the beginning of another; a number has eight bytes, the
// highest first, so that keys come in its order. The application comes first everywhere.
//
//	kind  components                         value                 read
//	u     app user 0x00                      profile               when the user is activated or looked at
//	u     app user a                         rules and grants      the rest of u: when the profile says
//	u     app user c claim                   claim                 that there is more, in one scan
//	u     app user d device                  device registration
//	u     app user g other                   relation to another user
//	u     app user i                         invisible
//	u     app user k                         revocations
//	u     app user n waiter                  who waits for the user
//	u     app user o                         outbox: epoch, head, trimmed; entries may say more
//	u     app user p device                  cursor
//	u     app user s sender                  dedupe floor and counts of a sender whose last entry is gone
//	u     app user z offset                  outbox entry, with its body and the counts of its sender
//	o     app user                           –                     at opening: who is online
//	k     hour app user sender id            dedupe                by id; hours go as a whole
//	t     seq                                transfer              at opening: what is not done
//	a     source generation seq              –                     when a transfer comes
//	f     source                             floor of transfers    at opening
//	v     seq                                event                 by readers
//	l     seq                                letter                by readers
//	h     –                                  hook cursor           by the webhook
//	m     –                                  counters              at opening
//	x     Unix ms app user                   –                     by the sweep: whose something ends
//
// All of a user lies in one range but the online row, dedupe rows, and expiry rows: loading is one get or
// one scan, erasing one range delete and what the indexes hold.
//
// A send is two rows, the entry and its dedupe row. What else it changes the entry says for as long as it is
// kept: the stream's head is the offset of the last entry, and the sender's counts are those in its
// last entry. The step that drops such an entry writes the row (o, s) in its place. Entries of a user
// that end in the same hour, or minute if they are short-lived, share a row of the expiry index.
//
// A value begins with a version byte. The rows that are written at every turn (profile, outbox, cursor, dedupe, entry) follow
// with varints and bytes, all others with a message of row.proto. A version that is newer than this program's is
// ErrNewer: the rows were written by a newer one, and must be neither dropped nor overwritten.
package row
