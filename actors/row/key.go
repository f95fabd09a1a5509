package row

import (
	"encoding/binary"
	"time"

	"muster/actors/presence"
)

// Kinds of rows, and kinds of rows of a user.
const (
	kindUser     = 'u'
	kindOnline   = 'o'
	kindDedupe   = 'k'
	kindTransfer = 't'
	kindTaken    = 'a'
	kindFloor    = 'f'
	kindEvent    = 'v'
	kindLetter   = 'l'
	kindCursor   = 'h'
	kindCounters = 'm'
	kindExpiry   = 'x'

	ofProfile   = 0
	ofAudience  = 'a'
	ofClaim     = 'c'
	ofDevice    = 'd'
	ofRelation  = 'g'
	ofInvisible = 'i'
	ofRevoked   = 'k'
	ofNotify    = 'n'
	ofOutbox    = 'o'
	ofPosition  = 'p'
	ofSender    = 's'
	ofEntry     = 'z'
)

// Range is the keys in [From, To).
type Range struct{ From, To []byte }

func str(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func num(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

// below is the range of all keys that begin with prefix.
func below(prefix []byte) Range {
	to := append([]byte(nil), prefix...)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			return Range{prefix, to[:i+1]}
		}
	}
	panic("row: no kind is 0xff")
}

func user(kind byte, k presence.Key) []byte {
	b := make([]byte, 0, 4+len(k.App)+len(k.User)+16)
	return str(str(append(b, kind), k.App), k.User)
}

// of is the key of a row of a user.
func of(k presence.Key, sub byte) []byte { return append(user(kindUser, k), sub) }

// User is the range of all rows of a user.
func User(k presence.Key) Range { return below(user(kindUser, k)) }

// More is the range of all rows of a user but its profile.
func More(k presence.Key) Range {
	r := User(k)
	return Range{append(r.From, ofProfile+1), r.To}
}

// ProfileKey is the key of a user's profile.
func ProfileKey(k presence.Key) []byte { return of(k, ofProfile) }

// EntryKey is the key of an outbox entry.
func EntryKey(k presence.Key, offset uint64) []byte { return num(of(k, ofEntry), offset) }

// Entries is the range of the outbox entries from one offset to another, both included.
func Entries(k presence.Key, from, to uint64) Range {
	return Range{EntryKey(k, from), append(EntryKey(k, to), 0)}
}

// OnlineKey is the key of a user's row in the online index.
func OnlineKey(k presence.Key) []byte { return user(kindOnline, k) }

// AllOnline is the range of the online index.
func AllOnline() Range { return below([]byte{kindOnline}) }

// Hour is the hour of the time inside a client id, since 1970.
func Hour(id [16]byte) uint64 {
	return HourOf(IDTime(id))
}

// IDTime is the time inside a client id: the first 48 bits of a UUIDv7 or ULID, Unix ms.
func IDTime(id [16]byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

func stream(hour uint64, k presence.Key) []byte {
	return str(str(num([]byte{kindDedupe}, hour), k.App), k.User)
}

// DedupeKey is the key that says which offset a sender's client id got in a user's outbox.
func DedupeKey(k presence.Key, sender string, id [16]byte) []byte {
	return append(str(stream(Hour(id), k), sender), id[:]...)
}

// SenderIDs is the range of the ids of one hour that a sender used in a user's outbox.
func SenderIDs(hour uint64, k presence.Key, sender string) Range {
	return below(str(stream(hour, k), sender))
}

// StreamIDs is the range of all ids of one hour in a user's outbox.
func StreamIDs(hour uint64, k presence.Key) Range { return below(stream(hour, k)) }

// IDsBefore is the range of all dedupe rows of the hours before one.
func IDsBefore(hour uint64) Range {
	return Range{[]byte{kindDedupe}, num([]byte{kindDedupe}, hour)}
}

// TransferKey is the key of an outgoing transfer.
func TransferKey(seq uint64) []byte { return num([]byte{kindTransfer}, seq) }

// Transfers is the range of all outgoing transfers.
func Transfers() Range { return below([]byte{kindTransfer}) }

// TakenKey is the key that says that a transfer has been taken.
func TakenKey(source uint32, generation, seq uint64) []byte {
	return num(num(num([]byte{kindTaken}, uint64(source)), generation), seq)
}

// TakenBelow is the range of the transfers taken from a source, of an earlier generation or before a seq of this one.
func TakenBelow(source uint32, generation, seq uint64) Range {
	return Range{num([]byte{kindTaken}, uint64(source)), TakenKey(source, generation, seq)}
}

// FloorKey is the key of the first transfer of a source that may still come.
func FloorKey(source uint32) []byte { return num([]byte{kindFloor}, uint64(source)) }

// Floors is the range of all floors.
func Floors() Range { return below([]byte{kindFloor}) }

// EventKey is the key of an event.
func EventKey(seq uint64) []byte { return num([]byte{kindEvent}, seq) }

// EventsFrom is the range of the events from a seq on.
func EventsFrom(seq uint64) Range { return Range{EventKey(seq), []byte{kindEvent + 1}} }

// LetterKey is the key of an event that the webhook refused for good.
func LetterKey(seq uint64) []byte { return num([]byte{kindLetter}, seq) }

// LettersFrom is the range of the letters from a seq on.
func LettersFrom(seq uint64) Range { return Range{LetterKey(seq), []byte{kindLetter + 1}} }

// CursorKey is the key of the webhook's cursor.
func CursorKey() []byte { return []byte{kindCursor} }

// CountersKey is the key of the shard's counters.
func CountersKey() []byte { return []byte{kindCounters} }

// ExpiryKey is the key that says that something of a user ends at a time, Unix ms.
func ExpiryKey(at int64, k presence.Key) []byte {
	return str(str(num([]byte{kindExpiry}, uint64(max(at, 0))), k.App), k.User)
}

// ExpiredBy is the range of what ends at or before a time, Unix ms.
func ExpiredBy(at int64) Range {
	return Range{[]byte{kindExpiry}, num([]byte{kindExpiry}, uint64(max(at, 0)+1))}
}

// Early reports that a row may be asked for by its key before it is committed.
func Early(key []byte) bool {
	return len(key) > 0 && (key[0] == kindDedupe || key[0] == kindTaken)
}

// Window is how long a dedupe row is kept, at least, from the hour in its id.
const Window = 25 * time.Hour

// HourOf is the hour of a time, since 1970.
func HourOf(t time.Time) uint64 {
	return uint64(max(t.UnixMilli(), 0)) / uint64(time.Hour.Milliseconds())
}

// Offset is the last component of an entry's key.
func Offset(b []byte) uint64 { p := parser{rest: b}; return p.num() }
