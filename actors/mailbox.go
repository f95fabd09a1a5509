package actors

import (
	"runtime"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// mailbox is a protoactor mailbox that costs little while it is empty, as the
// mailboxes of nearly all activations are: 64 bytes where protoactor's own holds 450.
// System messages go first.
//
// Without begin it handles a message in the turn of the one who posts it. That is how
// activations run: only their gateway posts to them, so a shard is one thread of work
// and a message changes no goroutine, stack or core on its way.
type mailbox struct {
	mu        sync.Mutex
	first     any     // the next user message
	more      *queues // what else waits; nil: nothing
	running   bool
	suspended bool
	invoker   actor.MessageInvoker
	begin     func() // makes someone call run
}

type queues struct{ user, system []any }

// throughput is how many messages a mailbox handles before it yields.
const throughput = 300

func (m *mailbox) RegisterHandlers(i actor.MessageInvoker, _ actor.Dispatcher) { m.invoker = i }
func (m *mailbox) Start()                                                      {}

func (m *mailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil {
		return 0
	}
	if m.more == nil {
		return 1
	}
	return 1 + len(m.more.user)
}

func (m *mailbox) PostUserMessage(msg any) {
	m.mu.Lock()
	if m.first == nil {
		m.first = msg
	} else {
		q := m.queues()
		q.user = append(q.user, msg)
	}
	m.schedule(!m.suspended)
}

func (m *mailbox) PostSystemMessage(msg any) {
	m.mu.Lock()
	q := m.queues()
	q.system = append(q.system, msg)
	m.schedule(true)
}

func (m *mailbox) queues() *queues {
	if m.more == nil {
		m.more = &queues{}
	}
	return m.more
}

// schedule is called with the lock held, and releases it.
func (m *mailbox) schedule(work bool) {
	start := work && !m.running
	if start {
		m.running = true
	}
	m.mu.Unlock()
	switch {
	case !start:
	case m.begin != nil:
		m.begin()
	default:
		m.run()
	}
}

// run handles messages until there are none. A panic is handed to the supervisor, which
// suspends the mailbox; what is queued is not handled before it resumes.
func (m *mailbox) run() {
	var msg any
	defer func() {
		if r := recover(); r != nil {
			m.invoker.EscalateFailure(r, msg)
			m.run()
		}
	}()
	for i := 1; ; i++ {
		if i%throughput == 0 {
			runtime.Gosched()
		}
		var system bool
		if msg, system = m.next(); msg == nil {
			return
		}
		if !system {
			m.invoker.InvokeUserMessage(msg)
			continue
		}
		switch msg.(type) {
		case *actor.SuspendMailbox:
			m.suspend(true)
		case *actor.ResumeMailbox:
			m.suspend(false)
		default:
			m.invoker.InvokeSystemMessage(msg)
		}
	}
}

// next takes a message, or ends running.
func (m *mailbox) next() (msg any, system bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.more
	if q != nil && len(q.system) > 0 {
		msg, q.system = shift(q.system)
		return msg, true
	}
	if m.first == nil || m.suspended {
		m.running = false
		return nil, false
	}
	msg, m.first = m.first, nil
	if q == nil {
		return msg, false
	}
	if len(q.user) > 0 {
		m.first, q.user = shift(q.user)
	} else {
		m.more = nil
	}
	return msg, false
}

// shift takes the head and lets go of an emptied slice.
func shift(q []any) (any, []any) {
	head := q[0]
	q[0] = nil
	if q = q[1:]; len(q) == 0 {
		return head, nil
	}
	return head, q
}

func (m *mailbox) suspend(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.suspended = on
}
