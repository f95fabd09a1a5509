package presence

import (
	"slices"
	"strings"
)

// relation is what another user is to this one, with the serials of the last request in
// either direction.
type relation struct {
	other string
	asked uint64
	heard uint64
	bits  Relation
}

// relations is sorted by other. It is never changed in place: audiences share it.
type relations []relation

// of returns the relation to a user; none has no bits.
func (rs relations) of(other string) relation {
	if i, found := rs.find(other); found {
		return rs[i]
	}
	return relation{other: other}
}

func (rs relations) find(other string) (int, bool) {
	return slices.BinarySearchFunc(rs, other, func(r relation, id string) int { return strings.Compare(r.other, id) })
}

// with returns a copy with rows, sorted, in place of those of the same users.
func (rs relations) with(rows []relation) relations {
	all := make(relations, 0, len(rs)+len(rows))
	i := 0
	for _, r := range rows {
		for ; i < len(rs) && rs[i].other < r.other; i++ {
			all = append(all, rs[i])
		}
		if i < len(rs) && rs[i].other == r.other {
			i++
		}
		if r.bits != 0 {
			all = append(all, r)
		}
	}
	if all = append(all, rs[i:]...); len(all) == 0 {
		return nil
	}
	return slices.Clip(all)
}

// count is the number of relations that have one of the bits.
func (rs relations) count(bits Relation) (n int) {
	for i := range rs {
		if rs[i].bits&bits != 0 {
			n++
		}
	}
	return n
}

// Shown is what the user may be told: not who has blocked it, nor the request of one whom it blocked.
func (r Relation) Shown() Relation {
	r &^= RelationBlockedBy
	if r&RelationBlocked != 0 {
		r &^= RelationPendingIn
	}
	return r
}

// relations of the user, sorted.
func (u *User) relations() relations {
	if u.more == nil {
		return nil
	}
	return u.more.relations
}

// Relations returns up to limit relations in the order of their users, after one.
func (u *User) Relations(after string, limit int) (rows []RelationRow, more bool) {
	for _, r := range u.relations() {
		if r.other <= after || r.bits.Shown() == 0 {
			continue
		}
		if len(rows) == limit {
			return rows, true
		}
		rows = append(rows, RelationRow{r.other, r.bits.Shown()})
	}
	return rows, false
}

// relate takes over changed relations, sorted, each user once.
func (u *User) relate(rows []relation, out *Output) {
	const seen = RelationFrom | RelationBlocked | RelationBlockedBy
	audience := false
	for _, r := range rows {
		was := u.relations().of(r.other)
		audience = audience || (was.bits^r.bits)&seen != 0
		out.Records = append(out.Records, RelationSet{r.other, r.bits, r.asked, r.heard})
		if was.bits.Shown() != r.bits.Shown() {
			out.Contacts = append(out.Contacts, RelationRow{r.other, r.bits.Shown()})
		}
	}
	m, news := u.extra(), u.news
	m.relations = m.relations.with(rows)
	u.rebuild()
	if !audience {
		u.news = max(news, countNews)
	}
}

// setRelations blocks users and ends that; the others are told.
func (u *User) setRelations(in *SetRelations, out *Output) Reply {
	changed := map[string]relation{}
	set := func(ids []string, on, off Relation) bool {
		for _, id := range ids {
			if !validID(id) {
				return false
			}
			r, ok := changed[id]
			if !ok {
				r = u.relations().of(id)
			}
			r.bits = r.bits&^off | on
			changed[id] = r
		}
		return true
	}
	if !set(in.Block, RelationBlocked, 0) || !set(in.Unblock, 0, RelationBlocked) {
		return bad("users: an id is 1 to 128 of A-Za-z0-9._@+=-")
	}
	return u.change(changed, out)
}

// change relates a set of rows, within the limits, and tells those who are blocked or no
// longer are.
func (u *User) change(changed map[string]relation, out *Output) Reply {
	var rows []relation
	for _, r := range changed {
		if r != u.relations().of(r.other) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b relation) int { return strings.Compare(a.other, b.other) })
	after := u.relations().with(rows)
	for _, l := range limits {
		if n := after.count(l.bits); n > u.cfg.Relations && n > u.relations().count(l.bits) {
			return Reply{Code: Limit, Message: l.name}
		}
	}
	if len(rows) == 0 {
		return Reply{}
	}
	for _, r := range rows {
		if was := u.relations().of(r.other); (was.bits^r.bits)&RelationBlocked != 0 {
			out.Records = append(out.Records, TransferOut{r.other, BlockedBy{r.bits&RelationBlocked != 0}})
		}
	}
	u.relate(rows, out)
	return Reply{}
}

var limits = []struct {
	name string
	bits Relation
}{{"contacts", relationContact}, {"blocks", RelationBlocked}}

// maxBlockedBy bounds the rows that others make by blocking the user; more are not kept.
const maxBlockedBy = 50_000

func (u *User) blockedBy(from string, on bool, out *Output) Reply {
	r := u.relations().of(from)
	was := r.bits
	if r.bits &^= RelationBlockedBy; on {
		r.bits |= RelationBlockedBy
	}
	switch {
	case r.bits == was:
		return Reply{}
	case on && u.relations().count(RelationBlockedBy) >= maxBlockedBy:
		return Reply{Code: Limit, Message: "blocks by others"}
	}
	u.relate([]relation{r}, out)
	return Reply{}
}

// importRows sets relations without a handshake.
func (u *User) importRows(in *Import, out *Output) Reply {
	const read = RelationTo | RelationFrom | RelationApproved | RelationBlocked
	changed := map[string]relation{}
	end := func(r relation) relation {
		r.bits &= RelationBlocked | RelationBlockedBy
		r.asked, r.heard = 0, 0
		return r
	}
	if in.Replace {
		for _, r := range u.relations() {
			if r.bits&^(RelationBlocked|RelationBlockedBy) != 0 {
				changed[r.other] = end(r)
			}
		}
	}
	for _, row := range in.Rows {
		if !validID(row.User) {
			return bad("users: an id is 1 to 128 of A-Za-z0-9._@+=-")
		}
		r := end(u.relations().of(row.User))
		r.bits |= row.Relation & read
		changed[row.User] = r
	}
	return u.change(changed, out)
}

// setGraph lets an external graph say who is a contact.
func (u *User) setGraph(in *SetGraph) Reply {
	if slices.ContainsFunc(in.Contacts, func(id string) bool { return !validID(id) }) {
		return bad("users: an id is 1 to 128 of A-Za-z0-9._@+=-")
	}
	m := u.extra()
	m.graph = nil
	if in.Contacts != nil {
		m.graph = &graph{union(nil, in.Contacts)}
	}
	u.rebuild()
	return Reply{}
}

// graph is who counts as a contact by an external graph, sorted. Immutable.
type graph struct{ contacts []string }
