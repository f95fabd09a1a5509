package presence

// Relation is what one user is to another. The zero Relation is none.
type Relation uint8

const (
	RelationTo         Relation = 1 << iota // this user may see the contact
	RelationFrom                            // the contact may see this user
	RelationPendingOut                      // this user asked, and awaits an answer
	RelationPendingIn                       // the contact asked, and awaits an answer
	RelationApproved                        // the contact's next request is approved without asking
	RelationBlocked                         // this user blocked the other
	RelationBlockedBy                       // the other blocked this user
)

// relationContact is what makes a relation a contact.
const relationContact = RelationTo | RelationFrom | RelationPendingOut | RelationApproved

// RelationRow is the relation to one user.
type RelationRow struct {
	User     string
	Relation Relation
}

// ContactAction is what a user does about a contact. The numbers are those of the link's
// schema.
type ContactAction uint8

const (
	Subscribe   ContactAction = iota + 1 // ask to see the other
	Approve                              // let the other see this user; before being asked: in advance
	Deny                                 // refuse a request, or end what was approved
	Unsubscribe                          // see the other no longer
	Remove                               // all of it
)

// ContactStanza is what one side of the handshake tells the other. The numbers are those
// of the link's schema.
type ContactStanza uint8

const (
	StanzaSubscribe    ContactStanza = iota + 1 // a request
	StanzaSubscribed                            // it is approved
	StanzaUnsubscribe                           // it, or what it led to, is withdrawn
	StanzaUnsubscribed                          // it is refused, or what it led to is ended
)

// Transferred is what a change of one user tells another, across shards: Handshake,
// BlockedBy, NotifyWhen, Publish or Erased.
type Transferred interface{ transferred() }

// Handshake is a stanza about the request with that serial: Unix ms of the subscribe, at
// least one more than that of the asker's request before. Answers and withdrawals name
// the request they mean, so that requests and answers that cross cannot be taken for
// others.
type Handshake struct {
	Stanza ContactStanza
	Serial uint64
}

// BlockedBy says that the sender blocked the receiver, or no longer does.
type BlockedBy struct{ On bool }

func (Handshake) transferred()  {}
func (BlockedBy) transferred()  {}
func (NotifyWhen) transferred() {}
func (Publish) transferred()    {}
func (Erased) transferred()     {}
