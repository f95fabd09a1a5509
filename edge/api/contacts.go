package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
)

// ContactRow is the relation of a user to another.
type ContactRow struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User         string `json:"user"`
	Subscription string `json:"subscription" enum:"none,to,from,both" doc:"to: the user may see the contact; from: the contact may see the user"`
	PendingOut   bool   `json:"pending_out,omitempty" doc:"The user has asked and awaits an answer"`
	PendingIn    bool   `json:"pending_in,omitempty" doc:"The contact has asked and awaits an answer"`
	Approved     bool   `json:"approved,omitempty" doc:"A request of the contact will be approved without asking"`
	Blocked      bool   `json:"blocked,omitempty" doc:"The user has blocked the other"`
}

type contactsRequest struct {
	UserPath
	Freshness
	Cursor string `query:"cursor" maxLength:"256" doc:"The cursor of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"Rows in a page"`
}

type contactsReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Contacts []ContactRow `json:"contacts" doc:"In the order of their ids" nullable:"false"`
	Cursor   string       `json:"cursor,omitempty" doc:"Ask with it for the next page; absent: this was the last"`
}

// Subscription is a relation to be set.
type Subscription struct {
	User         string `json:"user" doc:"The contact"`
	Subscription string `json:"subscription" enum:"none,to,from,both" doc:"to: the user may see the contact; from: the contact may see the user; none ends it"`
}

type setContactsRequest struct {
	UserPath
	Body struct {
		Contacts []Subscription `json:"contacts" minItems:"1" maxItems:"1000" nullable:"false"`
	}
}

// ImportRow is a relation to be set, from the user's point of view.
type ImportRow struct {
	User         string `json:"user"`
	Contact      string `json:"contact"`
	Subscription string `json:"subscription" enum:"none,to,from,both" doc:"to: the user may see the contact; from: the contact may see the user; none ends it"`
}

type importRequest struct {
	Body struct {
		Rows []ImportRow `json:"rows" minItems:"1" maxItems:"1000" nullable:"false"`
	}
}

// ImportResult is how one row ended.
type ImportResult struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User    string `json:"user"`
	Contact string `json:"contact"`
	Error   *Error `json:"error,omitempty" doc:"Absent: done, for both users"`
}

type importReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Results []ImportResult `json:"results" doc:"One per row, in the order given" nullable:"false"`
}

type contactPath struct {
	UserPath
	Contact string `path:"contact" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" patternDescription:"an id of 1 to 128 of A-Z a-z 0-9 . _ @ + = -" doc:"The other user"`
}

func (a *API) contacts() {
	tag := []string{"contacts"}
	handle(a, huma.Operation{
		OperationID: "contacts", Method: http.MethodGet, Path: "/v1/users/{id}/contacts", Tags: tag,
		Summary: "Contacts, requests and blocks of a user, by pages",
	}, a.listContacts)
	handle(a, huma.Operation{
		OperationID: "set-contacts", Method: http.MethodPost, Path: "/v1/users/{id}/contacts", Tags: tag,
		Summary: "Set relations of a user without asking anybody", Description: "Both users of each relation are told. Contacts are the users that the rule \"contacts\" means; at most 5,000.",
	}, a.setContacts)
	handle(a, huma.Operation{
		OperationID: "remove-contact", Method: http.MethodDelete, Path: "/v1/users/{id}/contacts/{contact}", Tags: tag,
		Summary: "End the relation of two users", Description: "For both; requests between them end, too. A block stays.",
	}, a.removeContact)
	handle(a, huma.Operation{
		OperationID: "import-contacts", Method: http.MethodPost, Path: "/v1/contacts/import", Tags: tag,
		Summary: "Set relations of many users without asking anybody", Description: "Up to 1,000 rows; each sets both sides, so one row per pair of users is enough. It may be repeated safely.",
	}, a.importContacts)
	handle(a, huma.Operation{
		OperationID: "set-blocks", Method: http.MethodPost, Path: "/v1/users/{id}/blocks", Tags: tag,
		Summary: "Block and unblock users", Description: "A block hides both from each other, above all rules.",
	}, a.setBlocks)
	handle(a, huma.Operation{
		OperationID: "invalidate-graph", Method: http.MethodPost, Path: "/v1/users/{id}/graph/invalidate", Tags: tag,
		Summary: "Say that a user's contacts have changed, where the application keeps them", Description: "The audience webhook is asked again at once instead of within 60 s.",
	}, a.invalidateGraph)
}

func (a *API) listContacts(ctx context.Context, in *contactsRequest) (contactsReply, error) {
	after, err := afterOf(in.Cursor)
	if err != nil {
		return contactsReply{}, err
	}
	answer, err := a.ask(ctx, in.ID, &link.Ask{Linearizable: in.Linearizable, What: &link.Ask_Contacts{
		Contacts: &link.ContactsPage{User: in.ID, After: after, Limit: uint32(in.Limit)},
	}})
	if err != nil {
		return contactsReply{}, err
	}
	reply := contactsReply{Contacts: make([]ContactRow, 0, len(answer.Contacts))}
	for _, r := range answer.Contacts {
		row := ContactRow{
			User: r.User, Subscription: subscriptions[bit(r.To)|bit(r.From)<<1],
			PendingOut: r.PendingOut, PendingIn: r.PendingIn, Approved: r.Approved, Blocked: r.Blocked,
		}
		if row != (ContactRow{User: r.User, Subscription: subscriptions[0]}) { // else it is that the other has blocked the user
			reply.Contacts = append(reply.Contacts, row)
		}
	}
	if n := len(answer.Contacts); answer.More && n > 0 {
		reply.Cursor = cursorAfter(answer.Contacts[n-1].User)
	}
	return reply, nil
}

var subscriptions = [4]string{"none", "to", "from", "both"}

func bit(on bool) int {
	if on {
		return 1
	}
	return 0
}

// A cursor is the last id of the page before.
const cursorMark = "1:"

func cursorAfter(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorMark + id))
}

func afterOf(cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	data, err := base64.RawURLEncoding.DecodeString(cursor)
	id, ok := strings.CutPrefix(string(data), cursorMark)
	if err != nil || !ok || !wire.ValidID(id) {
		return "", badRequest("query.cursor: not one of this call")
	}
	return id, nil
}

// ask reads something of one user.
func (a *API) ask(ctx context.Context, user string, ask *link.Ask) (*link.Answer, error) {
	ask.App = appOf(ctx)
	down, err := a.call(ctx, &link.Up{Shard: link.ShardOf(ask.App, link.KindUser, user), Body: &link.Up_Ask{Ask: ask}})
	if err != nil && ask.Linearizable {
		return nil, unconfirmed()
	}
	if err != nil {
		return nil, err
	}
	answer := down.GetAnswer()
	if answer == nil {
		return nil, wrongAnswer()
	}
	return answer, coreError(answer.Code, answer.Message)
}

func (a *API) setContacts(ctx context.Context, in *setContactsRequest) (results, error) {
	rows := make([]ImportRow, len(in.Body.Contacts))
	for i, c := range in.Body.Contacts {
		rows[i] = ImportRow{User: in.ID, Contact: c.User, Subscription: c.Subscription}
	}
	done, err := a.relate(ctx, rows)
	if err != nil {
		return results{}, err
	}
	out := results{Results: make([]Result, len(done))}
	for i, r := range done {
		out.Results[i] = Result{User: r.Contact, Error: r.Error}
	}
	return out, nil
}

func (a *API) removeContact(ctx context.Context, in *contactPath) (empty, error) {
	done, err := a.relate(ctx, []ImportRow{{User: in.ID, Contact: in.Contact, Subscription: "none"}})
	if err == nil && done[0].Error != nil {
		err = done[0].Error
	}
	return empty{}, err
}

func (a *API) importContacts(ctx context.Context, in *importRequest) (importReply, error) {
	done, err := a.relate(ctx, in.Body.Rows)
	return importReply{Results: done}, err
}

// relate sets relations on both sides: one act per user who is named, in parallel.
func (a *API) relate(ctx context.Context, rows []ImportRow) ([]ImportResult, error) {
	type pair struct{ a, b string }
	at := map[pair]int{} // the first row of each pair
	sides := map[string][]*link.ContactRow{}
	var users []string
	side := func(user, other string, to, from bool) {
		if sides[user] == nil {
			users = append(users, user)
		}
		sides[user] = append(sides[user], &link.ContactRow{User: other, To: to, From: from})
	}
	for i, r := range rows {
		to, from := r.Subscription == "to" || r.Subscription == "both", r.Subscription == "from" || r.Subscription == "both"
		switch {
		case !wire.ValidID(r.User):
			return nil, badRequest("body, row %d: %.64q is not an id", i, r.User)
		case !wire.ValidID(r.Contact):
			return nil, badRequest("body, row %d: %.64q is not an id", i, r.Contact)
		case r.User == r.Contact:
			return nil, badRequest("body, row %d: a user has no relation to itself", i)
		}
		if first, twice := at[pair{r.User, r.Contact}]; twice {
			return nil, badRequest("body, row %d: the same two users as in row %d", i, first)
		}
		at[pair{r.User, r.Contact}], at[pair{r.Contact, r.User}] = i, i
		side(r.User, r.Contact, to, from)
		side(r.Contact, r.User, from, to)
	}
	failed := make([]*Error, len(users))
	parallel(len(users), func(i int) {
		if err := a.act(ctx, &link.Act{User: users[i], What: &link.Act_Import{Import: &link.Import{Rows: sides[users[i]]}}}); err != nil {
			failed[i] = callError(err)
		}
	})
	why := map[string]*Error{}
	for i, user := range users {
		why[user] = failed[i]
	}
	out := make([]ImportResult, len(rows))
	for i, r := range rows {
		out[i] = ImportResult{User: r.User, Contact: r.Contact, Error: why[r.User]}
		if out[i].Error == nil {
			out[i].Error = why[r.Contact]
		}
	}
	return out, nil
}

// setBlocks is one change of the user who blocks; its shard tells the others.
func (a *API) setBlocks(ctx context.Context, in *relationRequest) (results, error) {
	out, err := in.names()
	if err != nil {
		return results{}, err
	}
	err = a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Relations{Relations: &link.Relations{
		Block: in.Body.Add, Unblock: in.Body.Remove,
	}}})
	return results{Results: out}, err
}

func (a *API) invalidateGraph(ctx context.Context, in *UserPath) (empty, error) {
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Regraph{Regraph: true}})
}
