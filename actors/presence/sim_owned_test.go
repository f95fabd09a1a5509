package presence

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// own does one random thing about what users own.
func (s *sim) own() {
	c := s.client(s.someone(), simDevices[s.r.Intn(len(simDevices))])
	switch n := s.r.Intn(40); {
	case n < 12:
		s.somePublish()
	case n < 20:
		s.ack(c)
	case n < 30:
		s.someContact(c)
	case n < 33:
		in := NotifyWhen{User: s.someoneBut(c.user), TTL: time.Duration(10+s.r.Intn(100)) * time.Second, End: s.r.Intn(4) == 0}
		s.log("%s asks for %+v", c.user, in)
		s.gateway(Deliver{Key: Key{testApp, c.user}, In: in})
	case n < 36:
		in := SetDevice{Device: simDevices[s.r.Intn(len(simDevices))], Provider: "fcm", Token: fmt.Sprint("t", s.r.Intn(3)), Forget: s.r.Intn(2) == 0}
		s.log("%s: device %+v", c.user, in)
		s.gateway(Deliver{Key: Key{testApp, c.user}, In: in})
	case n < 37:
		s.log("outbox of %s is purged", c.user)
		s.serial++
		s.gateway(Deliver{Key: Key{testApp, c.user}, In: Purge{s.serial<<8 | 2}})
	case n < 38:
		s.erase(c.user)
	default:
		s.advance(time.Duration(s.r.Intn(120))*time.Second, false)
	}
}

func (s *sim) someoneBut(user string) string {
	i := slices.Index(simUsers, user)
	return simUsers[(i+1+s.r.Intn(len(simUsers)-1))%len(simUsers)]
}

func (s *sim) somePublish() {
	to := s.someone()
	p := Publish{Class: Urgency(s.r.Intn(3)), AnyDevice: s.r.Intn(4) == 0, Collapse: []string{"", "", "k", "l"}[s.r.Intn(4)]}
	p.TTL = []time.Duration{0, 0, 10 * time.Second, time.Minute}[s.r.Intn(4)]
	if s.r.Intn(3) == 0 {
		p.Sender = s.someoneBut(to)
	}
	switch s.r.Intn(8) {
	case 0: // too old, or too far ahead
		p.ID = s.newID(s.now.Add([]time.Duration{-25 * time.Hour, time.Hour}[s.r.Intn(2)]))
	case 1, 2: // again
		if n := len(s.sent); n > 0 {
			again := s.sent[n-1-s.r.Intn(min(n, 5))]
			if p = again.p; s.r.Intn(4) == 0 {
				p.Digest++
			}
			s.log("%s is sent again to %s", p.ClientID, again.to)
			s.publish(again.to, p)
			return
		}
		fallthrough
	default:
		p.ID = s.newID(s.now)
	}
	p.Digest, p.ClientID = uint64(s.r.Intn(1000)), fmt.Sprintf("m%d", s.serial)
	p.Body = `"` + strings.Repeat("x", s.r.Intn(100)) + `"`
	s.sent = append(s.sent, sentTo{to, p})
	s.publish(to, p)
}

func (s *sim) someContact(c *client) {
	in := Contact{User: s.someoneBut(c.user), Action: ContactAction(1 + s.r.Intn(5))}
	if s.r.Intn(2) == 0 { // what makes contacts is more likely
		in.Action = ContactAction(1 + s.r.Intn(2))
	}
	s.log("%s does %+v", c.user, in)
	s.gateway(Deliver{Key: Key{testApp, c.user}, In: in})
}

// erase removes a user, whose clients forget, too.
func (s *sim) erase(user string) {
	s.log("%s is erased", user)
	for _, d := range simDevices {
		if x := s.clients[user+"/"+d]; x != nil {
			x.safe = s.now
		}
	}
	s.gateway(Deliver{Key: Key{testApp, user}, In: Erase{}})
}

// sentTo is a publish that may be sent again.
type sentTo struct {
	to string
	p  Publish
}
