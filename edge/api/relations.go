package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

// Rule says who may see a field.
type Rule struct {
	Rule  string   `json:"rule" enum:"everyone,contacts,contacts_except,only,nobody"`
	Users []string `json:"users,omitempty" maxItems:"1000" doc:"For contacts_except and only" nullable:"false"`
}

// Grant shows fields to one user for a while, whatever the rules say.
type Grant struct {
	To     string   `json:"to" pattern:"^[A-Za-z0-9._@+=-]{1,128}$"`
	Fields []string `json:"fields" minItems:"1" maxItems:"7" enum:"state,last_seen,status,devices,activity,typing,receipts" nullable:"false"`
	TTLMs  int64    `json:"ttl_ms" minimum:"0" maximum:"86400000" doc:"0 ends the grant"`
}

type audienceRequest struct {
	UserPath
	Body struct {
		State    *Rule   `json:"state,omitempty"`
		LastSeen *Rule   `json:"last_seen,omitempty"`
		Status   *Rule   `json:"status,omitempty"`
		Devices  *Rule   `json:"devices,omitempty"`
		Activity *Rule   `json:"activity,omitempty"`
		Typing   *Rule   `json:"typing,omitempty"`
		Receipts *Rule   `json:"receipts,omitempty"`
		Grant    []Grant `json:"grant,omitempty" maxItems:"100" nullable:"false"`
	}
}

type relationRequest struct {
	UserPath
	Body struct {
		Add    []string `json:"add,omitempty" maxItems:"1000" nullable:"false"`
		Remove []string `json:"remove,omitempty" maxItems:"1000" nullable:"false"`
	}
}

// Result is how one item of a batch ended.
type Result struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User  string `json:"user"`
	Error *Error `json:"error,omitempty" doc:"Absent: done"`
}

type results struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Results []Result `json:"results" doc:"One per user named" nullable:"false"`
}

var fieldBits = map[string]presence.Mask{
	"state": presence.FieldState, "last_seen": presence.FieldLastSeen, "status": presence.FieldStatus,
	"devices": presence.FieldDevices, "activity": presence.FieldActivity, "typing": presence.FieldTyping,
	"receipts": presence.FieldReceipts,
}

var ruleNames = map[string]presence.Rule{
	"everyone": presence.Everyone, "contacts": presence.Contacts, "contacts_except": presence.ContactsExcept,
	"only": presence.Only, "nobody": presence.Nobody,
}

func (a *API) relations() {
	user := []string{"user"}
	handle(a, huma.Operation{
		OperationID: "set-audience", Method: http.MethodPost, Path: "/v1/users/{id}/audience", Tags: user,
		Summary: "Set who may see which field of a user", Description: "Fields that are left out keep their rule.",
	}, a.setAudience)
}

func (a *API) setAudience(ctx context.Context, in *audienceRequest) (empty, error) {
	b := &in.Body
	out := &link.Audience{}
	for _, f := range []struct {
		name string
		rule *Rule
	}{
		{"state", b.State}, {"last_seen", b.LastSeen}, {"status", b.Status}, {"devices", b.Devices},
		{"activity", b.Activity}, {"typing", b.Typing}, {"receipts", b.Receipts},
	} {
		if f.rule == nil {
			continue
		}
		for i, user := range f.rule.Users {
			if !wire.ValidID(user) {
				return empty{}, badRequest("body.%s.users[%d]: not an id", f.name, i)
			}
		}
		out.Rules = append(out.Rules, &link.Rule{
			Field: uint32(fieldBits[f.name]), Rule: uint32(ruleNames[f.rule.Rule]), Users: f.rule.Users,
		})
	}
	for _, g := range b.Grant {
		grant := &link.Grant{To: g.To, TtlMs: g.TTLMs}
		for _, field := range g.Fields {
			grant.Fields |= uint32(fieldBits[field])
		}
		out.Grants = append(out.Grants, grant)
	}
	if len(out.Rules) == 0 && len(out.Grants) == 0 {
		return empty{}, badRequest("body: name at least one field or grant")
	}
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Audience{Audience: out}})
}

// names checks a relation request and returns a result for each user in it.
func (in *relationRequest) names() ([]Result, error) {
	out := make([]Result, 0, len(in.Body.Add)+len(in.Body.Remove))
	seen := map[string]bool{}
	for _, user := range append(append([]string{}, in.Body.Add...), in.Body.Remove...) {
		switch {
		case !wire.ValidID(user):
			return nil, badRequest("body: %.64q is not an id", user)
		case user == in.ID:
			return nil, badRequest("body: a user has no relation to itself")
		case seen[user]:
			return nil, badRequest("body: %s is named twice", user)
		}
		seen[user] = true
		out = append(out, Result{User: user})
	}
	if len(out) == 0 {
		return nil, badRequest("body: name at least one user in add or remove")
	}
	return out, nil
}
