package muster

import "sync"

// tellerMost bounds what is waiting for a slow callback; what comes then is dropped.
const tellerMost = 1024

// teller runs the application's callbacks one at a time, away from the sockets.
type teller struct {
	queue  chan func()
	ending chan struct{}
	ended  sync.WaitGroup
}

func newTeller() *teller {
	t := &teller{queue: make(chan func(), tellerMost), ending: make(chan struct{})}
	t.ended.Go(func() {
		for {
			select {
			case f := <-t.queue:
				f()
			case <-t.ending:
				return
			}
		}
	})
	return t
}

func (t *teller) tell(f func()) {
	select {
	case t.queue <- f:
	default:
	}
}

// stop ends the teller after what it is doing; what still waits is forgotten.
func (t *teller) stop() {
	close(t.ending)
	t.ended.Wait()
}
