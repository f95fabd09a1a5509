package presence

import (
	"testing"
	"time"
)

// FuzzUser turns bytes into steps of one user and holds the model against each.
func FuzzUser(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x10\x05\x02\x00\x00\x09\x40\x00\x05\x00\x01"))
	f.Add([]byte("\x00\x01\x02\x06\x01\x01\x00\x11\x02\x07\x33\x08\x00\x00\x00\x09\xff\xff"))
	f.Add([]byte("\x00\x00\x20\x10\x00\x00\x10\x10\x01\x12\x01\x00\x0e\x00\x00\x15\x01\x00\x17\x00\x00\x19\x01\x05\x11\x08\x02\x19\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := DefaultConfig()
		cfg.Devices, cfg.Claims = 3, 3
		w := newWorld(cfg)
		w.fail = func(format string, args ...any) { t.Fatalf(format, args...) }
		w.open()
		a := w.actor(Key{testApp, "u"})
		for len(data) >= 3 {
			in := decode(data[0], data[1], data[2], w.now)
			data = data[3:]
			in = w.lookUp(a, in)
			if r, ok := in.(Received); ok {
				r.Seq = uint64(len(data))
				in = r
			}
			out := a.u.Step(w.now, in)
			w.checkUser(a, in, &out)
			w.keep("u", out.Records)
			if at, ok := a.u.Deadline(); ok && len(data)%2 == 0 && at.After(w.now) {
				w.now = at
			}
		}
		w.checkRestore(a)
	})
}

// decode makes an input of three bytes: what, which and how.
func decode(what, which, how byte, now time.Time) Input {
	device := []string{"a", "b", "c", "d", "e"}[which%5]
	conn := Conn{[]string{"e1", "e2"}[which/5%2], 1, uint64(how%8) + 1}
	session := device + string('0'+which/10%3)
	attach := Attach{
		Conn: conn, Session: session, Device: device, Class: Class(which%5) + 1, Attempt: uint64(how / 8 % 4), Resume: how&64 != 0,
		Away: how&128 != 0, Inactive: which&64 != 0, ActiveAt: now, Grace: time.Duration(int(which/32)-1) * 20 * time.Second,
		IssuedAt: now.Unix(), JTI: session,
	}
	if how&32 != 0 {
		attach.Outbox = &Position{uint64(which/64) * 3, uint64(how % 8)}
	}
	switch what % 32 {
	case 0, 1:
		return attach
	case 2:
		return Detach{Conn: conn, Session: session, Attempt: uint64(how / 8 % 4), Cause: Cause(which % 10), Away: how&128 != 0}
	case 3:
		return Active{Conn: conn, Session: session, Away: how&128 != 0, ActiveAt: now}
	case 4:
		if which&128 != 0 {
			session, conn = "", Conn{}
		}
		return SetClaim{session, conn, Claim{ID: string('a' + how%5), Source: "api", State: State(how / 5 % 4), Text: string('x' + how%3),
			Priority: int(which)%3*49 + 1, TTL: time.Duration(how%3) * 10 * time.Second, Durable: how&64 != 0}}
	case 5:
		return EndClaim{ID: string('a' + how%5)}
	case 6:
		return SetInvisible{On: how&1 != 0}
	case 7:
		return SetAudience{Rules: []FieldRule{{Field: 1 << (which % 7), Rule: Rule(how % 2 * 4)}}, Grants: []Grant{{To: "g", Fields: FieldState, TTL: time.Duration(how) * time.Second}}}
	case 8:
		return SetRelations{Block: []string{"x"}[:how%2], Unblock: []string{"y"}[:how/2%2]}
	case 9:
		if how&1 == 0 {
			return Kick{Device: device}
		}
		return Revoke{Before: now.Unix() - int64(how%3) + 1, JTI: session, Until: now.Unix() + 60}
	case 10:
		return EdgeLost{conn.Holder()}
	case 11:
		return Presume{now.Add(time.Duration(how) * time.Second)}
	case 12:
		if how&1 == 0 {
			return Announced{Edge: conn.Holder()}
		}
		return Announced{conn.Holder(), []Attach{attach}}
	}
	if in := decodeOwned(what, which, how, now); in != nil {
		return in
	}
	if how&1 == 0 {
		return ExtendGrace{now.Add(time.Minute)}
	}
	return Tick{}
}

// decodeOwned makes an input about what the user owns for good; nil for others.
func decodeOwned(what, which, how byte, now time.Time) Input {
	device := []string{"a", "b", "c", "d", "e"}[which%5]
	other := []string{"x", "y"}[how%2]
	taken := Received{Source: 1, Seq: uint64(what)<<16 | uint64(which)<<8 | uint64(how), From: other, At: now, Fresh: 9}
	switch what % 32 {
	case 14:
		return Contact{User: other, Action: ContactAction(1 + which%5)}
	case 15:
		return Import{Rows: []RelationRow{{other, Relation(which)}}}
	case 16, 17:
		var id ID
		for i, ms := 0, now.UnixMilli(); i < 6; i++ {
			id[i] = byte(ms >> (40 - 8*i))
		}
		id[15] = how % 4
		return Publish{Sender: []string{"", "x", "y"}[which%3], ID: id, Body: "1", Digest: uint64(how / 128), Fresh: 9, AnyDevice: which&8 != 0,
			Collapse: []string{"", "k"}[which/16%2], TTL: time.Duration(which/64) * 20 * time.Second}
	case 18:
		return AckOutbox{Conn: Conn{[]string{"e1", "e2"}[which/5%2], 1, uint64(how%8) + 1}, Epoch: 9, Offset: uint64(which % 16)}
	case 19:
		return SetDevice{Device: device, Forget: how&1 != 0}
	case 20:
		return NotifyWhen{User: other, TTL: time.Minute, End: which&1 != 0}
	case 21:
		taken.What = Handshake{ContactStanza(1 + which%4), uint64(how / 2)}
	case 22:
		taken.What = BlockedBy{which&1 != 0}
	case 23:
		taken.What = NotifyWhen{TTL: time.Duration(which%4+1) * 10 * time.Second, End: which&8 != 0}
	case 24:
		taken.What = []Transferred{Publish{Type: NotifyEntry}, Erased{}}[which%2]
	case 25:
		return []Input{Erase{}, Purge{uint64(how) + 1}, Wake{}}[which%3]
	}
	if taken.What == nil {
		return nil
	}
	return taken
}

// bytesSource draws its numbers from bytes, then from a counter.
type bytesSource struct {
	data []byte
	n    uint64
}

func (b *bytesSource) Seed(int64) {}

func (b *bytesSource) Int63() int64 {
	b.n += 0x9e3779b97f4a7c15
	v := b.n
	if len(b.data) > 0 {
		v, b.data = uint64(b.data[0])*0x0101010101010101+uint64(b.data[0])<<32, b.data[1:]
	}
	return int64(v &^ (1 << 63))
}

// FuzzSim lets bytes drive the simulator: users, gateway, edges and faults.
func FuzzSim(f *testing.F) {
	f.Add([]byte("presence"), uint8(60))
	f.Fuzz(func(t *testing.T, data []byte, steps uint8) {
		if _, failure := runFrom(&bytesSource{data: data}, int(steps), bug{}); failure != "" {
			t.Fatal(failure)
		}
	})
}
