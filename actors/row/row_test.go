package row

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/actors/presence"
)

var ann = presence.Key{App: "acme", User: "ann"}

func id(ms int64, tail byte) (id presence.ID) {
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[15] = tail
	return id
}

// The layout on disk: a change of one of these loses data.
func TestGoldenKeys(t *testing.T) {
	span := func(r Range) string { return fmt.Sprintf("%q–%q", r.From, r.To) }
	key := func(k []byte) string { return fmt.Sprintf("%q", k) }
	for _, c := range []struct{ name, got, want string }{
		{"user", span(User(ann)), `"u\x04acme\x03ann"–"u\x04acme\x03ano"`},
		{"more", span(More(ann)), `"u\x04acme\x03ann\x01"–"u\x04acme\x03ano"`},
		{"profile", key(ProfileKey(ann)), `"u\x04acme\x03ann\x00"`},
		{"entry", key(EntryKey(ann, 258)), `"u\x04acme\x03annz\x00\x00\x00\x00\x00\x00\x01\x02"`},
		{"entries", span(Entries(ann, 1, 2)), `"u\x04acme\x03annz\x00\x00\x00\x00\x00\x00\x00\x01"–"u\x04acme\x03annz\x00\x00\x00\x00\x00\x00\x00\x02\x00"`},
		{"online", key(OnlineKey(ann)), `"o\x04acme\x03ann"`},
		{"all online", span(AllOnline()), `"o"–"p"`},
		{"dedupe", key(DedupeKey(ann, "bob", id(3_600_000*5+1, 7))), `"k\x00\x00\x00\x00\x00\x00\x00\x05\x04acme\x03ann\x03bob\x00\x00\x01\x12\xa8\x81\x00\x00\x00\x00\x00\x00\x00\x00\x00\a"`},
		{"sender ids", span(SenderIDs(5, ann, "")), `"k\x00\x00\x00\x00\x00\x00\x00\x05\x04acme\x03ann\x00"–"k\x00\x00\x00\x00\x00\x00\x00\x05\x04acme\x03ann\x01"`},
		{"stream ids", span(StreamIDs(5, ann)), `"k\x00\x00\x00\x00\x00\x00\x00\x05\x04acme\x03ann"–"k\x00\x00\x00\x00\x00\x00\x00\x05\x04acme\x03ano"`},
		{"ids before", span(IDsBefore(5)), `"k"–"k\x00\x00\x00\x00\x00\x00\x00\x05"`},
		{"transfer", key(TransferKey(9)), `"t\x00\x00\x00\x00\x00\x00\x00\t"`},
		{"taken", key(TakenKey(63, 1, 9)), `"a\x00\x00\x00\x00\x00\x00\x00?\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\t"`},
		{"taken below", span(TakenBelow(63, 1, 9)), `"a\x00\x00\x00\x00\x00\x00\x00?"–"a\x00\x00\x00\x00\x00\x00\x00?\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\t"`},
		{"floor", key(FloorKey(63)), `"f\x00\x00\x00\x00\x00\x00\x00?"`},
		{"event", key(EventKey(9)), `"v\x00\x00\x00\x00\x00\x00\x00\t"`},
		{"letter", key(LetterKey(9)), `"l\x00\x00\x00\x00\x00\x00\x00\t"`},
		{"cursor", key(CursorKey()), `"h"`},
		{"counters", key(CountersKey()), `"m"`},
		{"expiry", key(ExpiryKey(258, ann)), `"x\x00\x00\x00\x00\x00\x00\x01\x02\x04acme\x03ann"`},
		{"expired by", span(ExpiredBy(258)), `"x"–"x\x00\x00\x00\x00\x00\x00\x01\x03"`},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestGoldenValues(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	p := Profile{Marked: true, More: true, Marker: presence.Marker{Online: true, LastSeen: at, LastConnected: at.Add(time.Minute), Since: at.Add(-time.Hour), Reason: presence.ReasonTimeout}}
	entry := presence.EntryPut{Body: `{"a":1}`, Entry: presence.Entry{Offset: 3, Class: presence.Critical, AnyDevice: true, At: at, Until: at.Add(time.Hour), Sender: "bob", ClientID: "01h", Collapse: "c", Size: 7}}
	sent := entry
	sent.Floor, sent.Hours = id(5, 1), []presence.HourCount{{Hour: 469_334, Rows: 1}, {Hour: 469_335, Rows: 300}}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"profile", EncodeProfile(p), `"\x01\a\x02\x80\xa0\xab\xfe\xf9b\xc0\xa9\a\xff\xb9\xb7\x03"`},
		{"no marker", EncodeProfile(Profile{More: true}), `"\x01\x02"`},
		{"outbox", encodeOutbox(presence.OutboxSet{Epoch: 7, Head: 300, Trimmed: 2, Gaps: []presence.Gap{{From: 1, To: 2, Reason: presence.GapExpired}}}),
			`"\x01\x00\x00\x00\x00\x00\x00\x00\a\xac\x02\x02\x01\x02\x01"`},
		{"cursor", encodePosition(presence.CursorSet{Epoch: 7, Offset: 300, Seen: 20_000}), `"\x01\x00\x00\x00\x00\x00\x00\x00\a\xac\x02\xa0\x9c\x01"`},
		{"dedupe", encodeDedupe(presence.DedupeSet{Epoch: 7, Offset: 3, At: at, Digest: 9}),
			`"\x01\x00\x00\x00\x00\x00\x00\x00\a\x00\x00\x00\x00\x00\x00\x00\t\x03\x80\xa0\xab\xfe\xf9b"`},
		{"entry", encodeEntry(&entry), `"\x01\x00\x01\x01\x80\xa0\xab\xfe\xf9b\x80\xba\xb7\x03\x03bob\x0301h\x01c{\"a\":1}"`},
		{"entry of a sender", encodeEntry(&sent), `"\x01\x00\x01\a\x80\xa0\xab\xfe\xf9b\x80\xba\xb7\x03\x03bob\x0301h\x01c\x02\xd6\xd2\x1c\x01\xd7\xd2\x1c\xac\x02\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01{\"a\":1}"`},
		{"relation", encodeRelation(presence.RelationSet{Relation: presence.RelationTo, Asked: 300}), `"\x01\x01\xac\x02\x00"`},
	} {
		if got := fmt.Sprintf("%q", c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if n := len(EncodeProfile(p)); n > 24 {
		t.Errorf("a profile takes %d bytes", n)
	}
}

// table is a shard's rows.
type table map[string][]byte

func (s table) apply(ws []Write) {
	for _, w := range ws {
		switch {
		case w.End != nil:
			for k := range s {
				if bytes.Compare([]byte(k), w.Key) >= 0 && bytes.Compare([]byte(k), w.End) < 0 {
					delete(s, k)
				}
			}
		case w.Value == nil:
			delete(s, string(w.Key))
		default:
			s[string(w.Key)] = w.Value
		}
	}
}

// read is what a shell reads of a user.
func (s table) read(t *testing.T, k presence.Key) (p Profile, out []presence.Record) {
	if v, ok := s[string(ProfileKey(k))]; ok {
		var err error
		if p, err = DecodeProfile(v); err != nil {
			t.Fatal(err)
		}
	}
	if p.Marked {
		out = append(out, p.Marker)
	}
	span := More(k)
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if key < string(span.From) || key >= string(span.To) {
			continue
		}
		if !p.More {
			t.Fatalf("row %q, but the profile says that there is no more", key)
		}
		r, err := Decode(k, []byte(key), s[key])
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		out = append(out, r)
	}
	return p, out
}

// model folds records by what they replace, in the plainest way.
type model map[string]presence.Record

func (m model) put(r presence.Record) {
	set := func(key string, gone bool, r presence.Record) {
		if delete(m, key); !gone {
			m[key] = r
		}
	}
	switch r := r.(type) {
	case presence.Marker:
		set("marker", false, r)
	case presence.ClaimSet:
		set("claim "+r.Claim.ID, false, r)
	case presence.ClaimEnded:
		set("claim "+r.ID, true, r)
	case presence.InvisibleSet:
		set("invisible", !r.On, r)
	case presence.RulesSet:
		set("rules", false, r)
	case presence.Revocations:
		set("revocations", false, r)
	case presence.RelationSet:
		set("relation "+r.Other, r.Relation == 0, r)
	case presence.NotifySet:
		set("notify "+r.Asker, false, r)
	case presence.NotifyEnded:
		set("notify "+r.Asker, true, r)
	case presence.OutboxSet:
		set("outbox", false, r)
	case presence.EntryPut:
		r.Body = ""
		set(fmt.Sprintf("entry %09d", r.Entry.Offset), false, r)
	case presence.EntriesDropped:
		for o := r.From; o <= r.To; o++ {
			set(fmt.Sprintf("entry %09d", o), true, r)
		}
	case presence.SenderSet:
		set("sender "+r.Sender, len(r.Hours) == 0, r)
	case presence.DeviceSet:
		set("device "+r.Device, false, r)
	case presence.DeviceGone:
		set("device "+r.Device, true, r)
		set("cursor "+r.Device, true, r)
	case presence.CursorSet:
		set("cursor "+r.Device, false, r)
	case presence.Erased:
		clear(m)
	}
}

func (m model) records() (out []presence.Record) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

func sorted(rs []presence.Record) (out []presence.Record) {
	m := model{}
	for _, r := range rs {
		m.put(r)
	}
	return m.records()
}

// gen draws records of few users, devices, offsets, so that they meet.
type gen struct{ *rand.Rand }

func (g gen) of(all ...string) string { return all[g.IntN(len(all))] }
func (g gen) name() string            { return g.of("a", "b", "bob", strings.Repeat("x", 128)) }
func (g gen) time() time.Time {
	if g.IntN(4) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(1_700_000_000_000 + g.Int64N(1e10)).UTC()
}
func (g gen) held() presence.HeldClaim {
	return presence.HeldClaim{Until: g.time(), At: g.time(), Claim: presence.Claim{ID: g.name()[:1], Source: g.of("api", "call"), State: presence.State(g.IntN(4)),
		Text: g.of("", "héllo"), Emoji: g.of("", "🎉"), Activity: g.of("", "{}"), Priority: g.IntN(100), TTL: time.Duration(g.Int64N(1e15)), Durable: g.IntN(2) == 0}}
}

func (g gen) record() presence.Record {
	offset := g.Uint64N(20) + 1
	switch g.IntN(22) {
	case 0, 1:
		return presence.Marker{Online: g.IntN(2) == 0, LastSeen: g.time(), LastConnected: g.time(), Since: g.time(), Reason: presence.Reason(g.IntN(6))}
	case 2:
		return presence.ClaimSet{HeldClaim: g.held()}
	case 3:
		return presence.ClaimEnded{ID: g.name()[:1]}
	case 4:
		r := presence.InvisibleSet{On: g.IntN(2) == 0}
		if r.On {
			r.LastSeen = g.time()
			for range g.IntN(3) {
				r.Claims = append(r.Claims, g.held())
			}
		}
		return r
	case 5:
		r := presence.RulesSet{Grants: []presence.HeldGrant{{To: g.name(), Fields: 3, Until: g.time()}}}
		if g.IntN(2) == 0 {
			r.Rules = []presence.FieldRule{{Field: presence.FieldStatus, Rule: presence.Only, Users: []string{"a", "b"}}}
		}
		return r
	case 6:
		return presence.Revocations{Before: g.Int64N(1e9), Tokens: []presence.RevokedJTI{{JTI: g.name(), Until: g.Int64N(1e9)}}}
	case 7, 8:
		return presence.RelationSet{Other: g.name(), Relation: presence.Relation(g.IntN(128)), Asked: g.Uint64N(1e13), Heard: g.Uint64N(3)}
	case 9:
		return presence.NotifySet{Asker: g.name(), Until: g.time(), Hidden: presence.Mask(g.IntN(128))}
	case 10:
		return presence.NotifyEnded{Asker: g.name()}
	case 11:
		r := presence.OutboxSet{Epoch: g.Uint64(), Head: g.Uint64N(1e6), Trimmed: g.Uint64N(1e3)}
		for range g.IntN(3) {
			r.Gaps = append(r.Gaps, presence.Gap{From: g.Uint64N(9), To: g.Uint64N(9), Reason: presence.GapReason(g.IntN(5))})
		}
		return r
	case 12, 13, 14:
		body := strings.Repeat("x", g.IntN(30))
		sent := presence.EntryPut{}
		if g.IntN(2) == 0 {
			sent.Hours = []presence.HourCount{{Hour: g.Uint32N(1e6), Rows: uint16(g.IntN(1e4))}, {Hour: g.Uint32N(1e6), Rows: 1}}[:1+g.IntN(2)]
			sent.Floor = [...]presence.ID{{}, id(g.Int64N(1e12), 1)}[g.IntN(2)]
		}
		return presence.EntryPut{Floor: sent.Floor, Hours: sent.Hours, Body: body, Entry: presence.Entry{Offset: offset, Type: presence.EntryType(g.IntN(2)), Class: presence.Urgency(g.IntN(3)),
			AnyDevice: g.IntN(2) == 0, At: g.time(), Until: g.time(), Sender: g.of("", "bob"), ClientID: g.of("", "01h"), Collapse: g.of("", "k"), Size: len(body)}}
	case 15:
		return presence.EntriesDropped{From: offset, To: offset + g.Uint64N(3), Reason: presence.GapReason(g.IntN(2))}
	case 16:
		r := presence.SenderSet{Sender: g.of("", "bob"), Floor: id(g.Int64N(1e12), 1), Offset: g.Uint64N(3)}
		for range g.IntN(3) {
			r.Hours = append(r.Hours, presence.HourCount{Hour: g.Uint32N(1e6), Rows: uint16(g.IntN(1e4))})
		}
		return r
	case 17, 18:
		return presence.DeviceSet{Device: g.name(), Provider: g.of("", "apns"), Token: g.of("", "tok"), Epoch: g.Uint64(), Offset: offset, Seen: g.Uint32N(1e5)}
	case 19:
		return presence.DeviceGone{Device: g.name()}
	case 20:
		return presence.CursorSet{Device: g.name(), Epoch: g.Uint64(), Offset: offset, Seen: g.Uint32N(1e5)}
	}
	if g.IntN(8) > 0 {
		return g.record()
	}
	return presence.Erased{}
}

// What is read back is what the records, folded, say: after each proposal, whatever was
// proposed together, and of nobody else.
func TestReadBack(t *testing.T) {
	kinds := map[string]bool{}
	for seed := range uint64(200) {
		g, rows := gen{rand.New(rand.NewPCG(seed, 1))}, table{}
		other := presence.Key{App: "acme", User: "ann2"}
		var q Profile
		rows.apply(q.Append(nil, other, []presence.Record{g.record(), presence.Marker{}}))
		_, before := rows.read(t, other)
		m, p := model{}, Profile{}
		var folded []presence.Record
		for range 60 {
			batch := make([]presence.Record, 1+g.IntN(4))
			for i := range batch {
				batch[i] = g.record()
				m.put(batch[i])
				kinds[fmt.Sprintf("%T", batch[i])] = true
			}
			rows.apply(p.Append(nil, ann, batch))
			if folded = presence.Fold(folded, batch...); !reflect.DeepEqual(sorted(folded), m.records()) {
				t.Fatalf("seed %d: after %+v\nfolded %+v\nwant %+v", seed, batch, sorted(folded), m.records())
			}
			got, records := rows.read(t, ann)
			if want := m.records(); !reflect.DeepEqual(sorted(records), want) {
				t.Fatalf("seed %d: after %+v\nread %+v\nwant %+v", seed, batch, sorted(records), want)
			}
			if got != p && (p.Marked || p.More) {
				t.Fatalf("seed %d: profile %+v, stored %+v", seed, p, got)
			}
			if _, online := rows[string(OnlineKey(ann))]; online != (got.Marked && got.Marker.Online) {
				t.Fatalf("seed %d: online row %v, marker %+v", seed, online, got)
			}
		}
		if _, after := rows.read(t, other); !reflect.DeepEqual(before, after) {
			t.Fatalf("seed %d: another user's rows changed: %+v, %+v", seed, before, after)
		}
	}
	if len(kinds) != 17 {
		t.Errorf("%d kinds of records were drawn: %v", len(kinds), slices.Sorted(maps.Keys(kinds)))
	}
}

// All of a user is gone after Erased but what the caller removes: dedupe and expiry rows.
func TestErased(t *testing.T) {
	g, rows, p := gen{rand.New(rand.NewPCG(1, 2))}, table{}, Profile{}
	var all []presence.Record
	for range 100 {
		r := g.record()
		if _, erased := r.(presence.Erased); !erased {
			all = append(all, r)
		}
	}
	rows.apply(p.Append(nil, ann, all))
	rows.apply(p.Append(nil, ann, []presence.Record{presence.Erased{}}))
	for _, k := range Expiries(ann, all) {
		rows.apply([]Write{{Key: k}})
	}
	if len(rows) != 0 || p != (Profile{}) {
		t.Errorf("left: %v, %+v", rows, p)
	}
}

func TestTransfersAndEvents(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	for _, what := range []presence.Transferred{
		presence.Handshake{Stanza: presence.StanzaSubscribed, Serial: 9}, presence.BlockedBy{On: true}, presence.BlockedBy{}, presence.Erased{},
		presence.NotifyWhen{User: "bob", TTL: time.Hour, End: true, Hidden: 3},
		presence.Publish{Type: presence.NotifyEntry, Sender: "bob", ID: id(5, 1), ClientID: "x", Body: "{}", Digest: 7, Class: presence.Critical,
			TTL: time.Minute, Collapse: "c", AnyDevice: true},
	} {
		in := &Stored{App: "acme", From: "ann", To: "bob", At: at, What: what}
		if out, err := DecodeTransfer(EncodeTransfer(in)); err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%+v: %+v, %v", in, out, err)
		}
	}
	in := &StoredEvent{Key: ann, Event: presence.Event{Type: "user.online", At: at, JSON: "{}"}, Generation: 2}
	if out, err := DecodeEvent(EncodeEvent(in)); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("%+v, %v", out, err)
	}
	known := presence.DedupeSet{Epoch: 3, Offset: 4, At: at, Digest: 1 << 63}
	if k, err := DecodeDedupe(encodeDedupe(known)); err != nil || *k != (presence.Known{Epoch: 3, Offset: 4, At: at, Digest: 1 << 63}) {
		t.Errorf("%+v, %v", k, err)
	}
	if c, err := DecodeCounters(EncodeCounters(Counters{300, 4})); err != nil || c != (Counters{300, 4}) {
		t.Errorf("%+v, %v", c, err)
	}
	if f, err := DecodeFloor(EncodeFloor(Floor{3, 400})); err != nil || f != (Floor{3, 400}) {
		t.Errorf("%+v, %v", f, err)
	}
	if n, err := DecodeCursor(EncodeCursor(77)); err != nil || n != 77 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestParse(t *testing.T) {
	if k, err := ParseOnline(OnlineKey(ann)); k != ann || err != nil {
		t.Error(k, err)
	}
	if at, k, err := ParseExpiry(ExpiryKey(5, ann)); at != 5 || k != ann || err != nil {
		t.Error(at, k, err)
	}
	for _, key := range [][]byte{TransferKey(5), EventKey(5), LetterKey(5)} {
		if n, err := ParseSeq(key); n != 5 || err != nil {
			t.Error(n, err)
		}
	}
	if n, err := ParseFloor(FloorKey(5)); n != 5 || err != nil {
		t.Error(n, err)
	}
	if got, err := ParseID(DedupeKey(ann, "bob", id(9, 9))); got != [16]byte(id(9, 9)) || err != nil {
		t.Error(got, err)
	}
	if Hour(id(7_200_000, 0)) != 2 || !Early(DedupeKey(ann, "", id(1, 1))) || !Early(TakenKey(1, 2, 3)) || Early(ProfileKey(ann)) {
		t.Error("hour, or which rows are early")
	}
}

// A row of a newer program is said to be one, whatever it is.
func TestNewer(t *testing.T) {
	newer := []byte{version + 1, 1, 2, 3}
	for _, sub := range []byte{ofAudience, ofClaim, ofDevice, ofRelation, ofInvisible, ofRevoked, ofNotify, ofOutbox, ofPosition, ofSender, ofEntry} {
		key := append(of(ann, sub), 0, 0, 0, 0, 0, 0, 0, 0)
		if _, err := Decode(ann, key, newer); !errors.Is(err, ErrNewer) {
			t.Errorf("%c: %v", sub, err)
		}
	}
	if _, err := Decode(ann, of(ann, '~'), []byte{version}); !errors.Is(err, ErrNewer) {
		t.Errorf("an unknown kind: %v", err)
	}
	if _, err := DecodeProfile(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("profile: %v", err)
	}
	if _, err := DecodeTransfer(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("transfer: %v", err)
	}
}

// FuzzDecode gives any bytes to all decoders: an error or a value, never a panic; and a
// value of a row without a message is what its encoding gives again.
func FuzzDecode(f *testing.F) {
	g := gen{rand.New(rand.NewPCG(3, 4))}
	for range 200 {
		var p Profile
		for _, w := range p.Append(nil, ann, []presence.Record{g.record()}) {
			f.Add(w.Key, w.Value)
		}
	}
	f.Add(EventKey(1), EncodeEvent(&StoredEvent{Key: ann}))
	f.Add(TransferKey(1), EncodeTransfer(&Stored{App: "a", What: presence.BlockedBy{}}))
	f.Fuzz(func(t *testing.T, key, v []byte) {
		_, _ = Decode(ann, key, v)
		_, _ = DecodeTransfer(v)
		_, _ = DecodeEvent(v)
		_, _ = DecodeDedupe(v)
		_, _ = DecodeCounters(v)
		_, _ = DecodeFloor(v)
		_, _ = DecodeCursor(v)
		_, _, _ = DecodeEntry(1, v)
		if k, err := ParseOnline(key); err == nil && !bytes.Equal(OnlineKey(k), key) {
			t.Errorf("online key %q", key)
		}
		if at, k, err := ParseExpiry(key); err == nil && at >= 0 && !bytes.Equal(ExpiryKey(at, k), key) {
			t.Errorf("expiry key %q", key)
		}
		_, _ = ParseSeq(key)
		_, _ = ParseFloor(key)
		_, _ = ParseID(key)
		if p, err := DecodeProfile(v); err == nil {
			if again, err := DecodeProfile(EncodeProfile(p)); err != nil || again != p {
				t.Errorf("profile %+v, again %+v", p, again)
			}
		}
	})
}
