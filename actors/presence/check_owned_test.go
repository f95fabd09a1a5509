package presence

import (
	"reflect"
	"slices"
	"strings"
)

// checkOwned compares what the step did with what the model says, and what both keep.
func (w *world) checkOwned(a *actor, in Input, out *Output, want *result) {
	name := a.key.User
	got, model := items(out), append([]item(nil), want.items...)
	slices.SortStableFunc(model, func(a, b item) int {
		if a.conn.Edge != b.conn.Edge {
			return strings.Compare(a.conn.Edge, b.conn.Edge)
		}
		return int(a.conn.ID) - int(b.conn.ID)
	})
	o := a.u.box()
	if a.blurred = a.blurred || o != nil && len(o.gaps) >= maxGaps-1; a.blurred { // the oldest reasons are joined
		for _, list := range [][]item{got, model} {
			for i := range list {
				list[i].reason = 0
			}
		}
	}
	if !slices.Equal(got, model) {
		n := 0
		for n < min(len(got), len(model)) && got[n] == model[n] {
			n++
		}
		w.fail("%s: %T%+v delivers %d, the model says %d; from the %dth on %v, not %v", name, in, in, len(got), len(model), n,
			got[n:min(n+5, len(got))], model[n:min(n+5, len(model))])
	}
	var transfers []TransferOut
	for _, r := range out.Records {
		if t, ok := r.(TransferOut); ok {
			transfers = append(transfers, t)
		}
	}
	slices.SortStableFunc(transfers, func(a, b TransferOut) int { return strings.Compare(a.To, b.To) })
	slices.SortStableFunc(want.transfers, func(a, b TransferOut) int { return strings.Compare(a.To, b.To) })
	if !reflect.DeepEqual(transfers, want.transfers) {
		w.fail("%s: %T%+v transfers %+v, the model says %+v", name, in, in, transfers, want.transfers)
	}
	if p, q := out.Reply.Published, want.published; p != nil || q != nil {
		if q != nil {
			c := *q
			if pub, ok := in.(Publish); ok && pub.Sender != "" {
				c.Epoch, c.Offset = 0, 0
			}
			q = &c
		}
		if !reflect.DeepEqual(p, q) {
			w.fail("%s: %T%+v published %+v, the model says %+v", name, in, in, p, q)
		}
	}
	w.checkKept(a, in)
}

// checkKept compares what user and model keep.
func (w *world) checkKept(a *actor, in Input) {
	name := a.key.User
	rows, _ := a.u.Relations("", 1<<20)
	var model []RelationRow
	for _, user := range sortedKeys(a.m.rel) {
		if b := a.m.rel[user].bits().Shown(); b != 0 {
			model = append(model, RelationRow{user, b})
		}
	}
	if !slices.Equal(rows, model) {
		w.fail("%s: %T%+v: relations %v, the model says %v", name, in, in, rows, model)
	}
	o, b := a.u.box(), a.m.box
	if o == nil {
		o = &outbox{}
	}
	var kept []uint64
	for _, h := range o.entries {
		kept = append(kept, h.offset)
	}
	if !slices.Equal(kept, b.kept()) && len(kept)+len(b.kept()) > 0 {
		w.fail("%s: %T%+v: keeps %v, the model says %v", name, in, in, kept, b.kept())
	}
	if o.epoch != b.epoch || o.head != b.head || len(o.devices) != len(b.devices) || len(o.readers) != len(b.readers) {
		w.fail("%s: %T%+v: outbox %+v, the model says %+v", name, in, in, *o, *b)
	}
	for _, d := range o.devices {
		if x := b.devices[d.id]; x == nil || x.cursor != d.cursor || x.day != int64(d.seen) || x.token != d.token {
			w.fail("%s: %T%+v: device %+v, the model says %+v", name, in, in, d, x)
		}
	}
	var waits []string
	if a.u.more != nil {
		for _, x := range a.u.more.waiters {
			waits = append(waits, x.asker)
		}
	}
	if strings.Join(waits, " ") != strings.Join(sortedKeys(a.m.waits), " ") {
		w.fail("%s: %T%+v: %v wait, the model says %v", name, in, in, waits, sortedKeys(a.m.waits))
	}
}
