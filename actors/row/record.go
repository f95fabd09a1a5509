package row

import (
	"time"

	"muster/actors/presence"
)

// own reports that a record has a row in the user's range other than the profile.
func own(r presence.Record) bool {
	switch r.(type) {
	case presence.Marker, presence.DedupeSet, presence.DedupeGone, presence.TransferOut, presence.TransferTaken, presence.Event, presence.Erased:
		return false
	}
	return true
}

// Widens reports that records need the profile to say that there is more.
func Widens(records []presence.Record) bool {
	for _, r := range records {
		if own(r) {
			return true
		}
	}
	return false
}

// Note changes the profile as a record of its user does.
func (p *Profile) Note(r presence.Record) {
	switch r := r.(type) {
	case presence.Marker:
		p.Marker, p.Marked = r, true
	case presence.Erased:
		*p = Profile{}
	default:
		p.More = p.More || own(r)
	}
}

// Append appends what records of a user change, in their order, and changes the profile,
// which is written if it must be. Transfers and events are rows of the shard: their
// numbers are not known here.
func (p *Profile) Append(w []Write, k presence.Key, records []presence.Record) []Write {
	for _, r := range records {
		was := *p
		p.Note(r)
		w = appendRecord(w, k, r)
		if _, marked := r.(presence.Marker); marked || p.More && !was.More {
			w = append(w, put(ProfileKey(k), EncodeProfile(*p)))
		}
		if e, ok := r.(presence.EntryPut); ok && e.Indexed {
			continue
		}
		if end := Ends(r); !end.IsZero() {
			w = append(w, put(ExpiryKey(ceil(end), k), present()))
		}
	}
	return w
}

func appendRecord(w []Write, k presence.Key, r presence.Record) []Write {
	switch r := r.(type) {
	case presence.Marker:
		if r.Online {
			return append(w, put(OnlineKey(k), present()))
		}
		return append(w, del(OnlineKey(k)))
	case presence.ClaimSet:
		return append(w, put(str(of(k, ofClaim), r.Claim.ID), encode(claimOf(&r.HeldClaim))))
	case presence.ClaimEnded:
		return append(w, del(str(of(k, ofClaim), r.ID)))
	case presence.InvisibleSet:
		if !r.On {
			return append(w, del(of(k, ofInvisible)))
		}
		return append(w, put(of(k, ofInvisible), encode(invisibleOf(&r))))
	case presence.RulesSet:
		return append(w, put(of(k, ofAudience), encode(audienceOf(&r))))
	case presence.Revocations:
		return append(w, put(of(k, ofRevoked), encode(revokedOf(&r))))
	case presence.RelationSet:
		if r.Relation == 0 {
			return append(w, del(str(of(k, ofRelation), r.Other)))
		}
		return append(w, put(str(of(k, ofRelation), r.Other), encodeRelation(r)))
	case presence.NotifySet:
		return append(w, put(str(of(k, ofNotify), r.Asker), encode(&Notify{Until: ms(r.Until), Hidden: uint32(r.Hidden)})))
	case presence.NotifyEnded:
		return append(w, del(str(of(k, ofNotify), r.Asker)))
	case presence.TransferTaken:
		return append(w, put(TakenKey(r.Source, r.Generation, r.Seq), present()))
	case presence.Erased:
		return append(w, User(k).Delete(), del(OnlineKey(k)))
	}
	return appendOutbox(w, k, r)
}

func appendOutbox(w []Write, k presence.Key, r presence.Record) []Write {
	switch r := r.(type) {
	case presence.OutboxSet:
		return append(w, put(of(k, ofOutbox), encodeOutbox(r)))
	case presence.EntryPut:
		return append(w, put(EntryKey(k, r.Entry.Offset), encodeEntry(&r)))
	case presence.EntriesDropped:
		if r.From == r.To {
			return append(w, del(EntryKey(k, r.From)))
		}
		return append(w, Entries(k, r.From, r.To).Delete())
	case presence.DedupeSet:
		return append(w, put(DedupeKey(k, r.Sender, r.ID), encodeDedupe(r)))
	case presence.DedupeGone:
		return append(w, del(DedupeKey(k, r.Sender, r.ID)))
	case presence.SenderSet:
		if len(r.Hours) == 0 {
			return append(w, del(str(of(k, ofSender), r.Sender)))
		}
		return append(w, put(str(of(k, ofSender), r.Sender), encode(senderOf(&r))))
	case presence.DeviceSet:
		return append(w, put(str(of(k, ofDevice), r.Device), encode(&Device{Provider: r.Provider, Token: r.Token,
			Epoch: r.Epoch, Offset: r.Offset, Seen: r.Seen})))
	case presence.DeviceGone:
		return append(w, del(str(of(k, ofDevice), r.Device)), del(str(of(k, ofPosition), r.Device)))
	case presence.CursorSet:
		return append(w, put(str(of(k, ofPosition), r.Device), encodePosition(r)))
	}
	return w
}

// Ends is when what a record holds ends by itself; zero: it does not. The expiry index
// has a row for it.
func Ends(r presence.Record) (first time.Time) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	switch r := r.(type) {
	case presence.ClaimSet:
		earlier(r.Until)
	case presence.InvisibleSet:
		for i := range r.Claims {
			earlier(r.Claims[i].Until)
		}
	case presence.RulesSet:
		for i := range r.Grants {
			earlier(r.Grants[i].Until)
		}
	case presence.Revocations:
		for i := range r.Tokens {
			earlier(time.Unix(r.Tokens[i].Until, 0))
		}
	case presence.EntryPut:
		if !r.Entry.Until.IsZero() {
			earlier(r.Entry.Wakes())
		}
	case presence.NotifySet:
		earlier(r.Until)
	}
	return first
}

// Expiries are the keys of the expiry rows of records.
func Expiries(k presence.Key, records []presence.Record) (keys [][]byte) {
	for _, r := range records {
		if end := Ends(r); !end.IsZero() {
			keys = append(keys, ExpiryKey(ceil(end), k))
		}
	}
	return keys
}

// Decode reads one row of a user other than the profile. Bodies of entries are left out.
func Decode(k presence.Key, key, v []byte) (presence.Record, error) {
	prefix := len(user(kindUser, k))
	if len(key) <= prefix {
		return nil, errShort
	}
	sub, p := key[prefix], parser{rest: key[prefix+1:]}
	var r presence.Record
	var err error
	switch sub {
	case ofEntry:
		r, _, err = DecodeEntry(p.num(), v)
	case ofOutbox:
		r, err = decodeOutbox(v)
	case ofPosition:
		c, fault := decodePosition(v)
		c.Device = p.str()
		r, err = c, fault
	case ofRelation:
		s, fault := decodeRelation(v)
		s.Other = p.str()
		r, err = s, fault
	default:
		r, err = decodeMessage(sub, &p, v)
	}
	if err == nil {
		err = p.end("a user's row", key)
	}
	return r, err
}

func decodeMessage(sub byte, p *parser, v []byte) (presence.Record, error) {
	switch sub {
	case ofClaim:
		var m Claim
		err := decode(v, &m)
		p.str()
		return presence.ClaimSet{HeldClaim: m.held()}, err
	case ofAudience:
		var m Audience
		err := decode(v, &m)
		return m.record(), err
	case ofInvisible:
		var m Invisible
		err := decode(v, &m)
		return m.record(), err
	case ofRevoked:
		var m Revoked
		err := decode(v, &m)
		return m.record(), err
	case ofNotify:
		var m Notify
		err := decode(v, &m)
		return presence.NotifySet{Asker: p.str(), Until: instant(m.Until), Hidden: presence.Mask(m.Hidden)}, err
	case ofDevice:
		var m Device
		err := decode(v, &m)
		return presence.DeviceSet{Device: p.str(), Provider: m.Provider, Token: m.Token, Epoch: m.Epoch, Offset: m.Offset, Seen: m.Seen}, err
	case ofSender:
		var m Sender
		if err := decode(v, &m); err != nil {
			return nil, err
		}
		return m.record(p.str())
	}
	// Rows of a kind that this version does not know were written by a newer one.
	return nil, ErrNewer
}
