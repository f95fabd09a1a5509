package actors

import (
	"runtime"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// mailbox is a protoactor mailbox that costs little while it is empty, as the
// mailboxes of nearly all activations are: protoactor's own holds 450 bytes. System
// messages go first. Its zero value is ready.
type mailbox struct {
	mu        sync.Mutex
	first     any   // the next user message …
	rest      []any // … and those after it
	system    []any
	running   bool
	suspended bool
	invoker   actor.MessageInvoker
}

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
	return 1 + len(m.rest)
}

func (m *mailbox) PostUserMessage(msg any) {
	m.mu.Lock()
	if m.first == nil {
		m.first = msg
	} else {
		m.rest = append(m.rest, msg)
	}
	m.schedule(!m.suspended)
}

func (m *mailbox) PostSystemMessage(msg any) {
	m.mu.Lock()
	m.system = append(m.system, msg)
	m.schedule(true)
}

// schedule is called with the lock held, and releases it.
func (m *mailbox) schedule(work bool) {
	start := work && !m.running
	if start {
		m.running = true
	}
	m.mu.Unlock()
	if start {
		go m.run()
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
	if len(m.system) > 0 {
		msg, m.system = shift(m.system)
		return msg, true
	}
	if m.first == nil || m.suspended {
		m.running = false
		return nil, false
	}
	msg, m.first = m.first, nil
	if len(m.rest) > 0 {
		m.first, m.rest = shift(m.rest)
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
