package muster

import "context"

// feed is one reader's place in a changing table: the keys it has still to look at, and
// what it saw last of each. Changes not read yet of one key become one. The table's owner
// guards it with its own lock.
type feed[V any] struct {
	seen   map[string]V
	queue  []string
	queued map[string]bool
	wake   chan struct{} // holds a token while queue is not empty
}

func newFeed[V any]() *feed[V] {
	return &feed[V]{seen: map[string]V{}, queued: map[string]bool{}, wake: make(chan struct{}, 1)}
}

func (f *feed[V]) add(key string) {
	if f.queued[key] {
		return
	}
	f.queued[key] = true
	f.queue = append(f.queue, key)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// pop takes the next key; false if there is none.
func (f *feed[V]) pop() (key string, ok bool) {
	if len(f.queue) == 0 {
		return "", false
	}
	key = f.queue[0]
	f.queue = f.queue[1:]
	if len(f.queue) == 0 {
		f.queue = nil
	}
	delete(f.queued, key)
	return key, true
}

// await waits until there may be something to pop; false when ctx or the client ended.
func (f *feed[V]) await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-f.wake:
		return true
	case <-ctx.Done():
		return false
	case <-done:
		return false
	}
}
