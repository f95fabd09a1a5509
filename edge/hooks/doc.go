// Package hooks is where Muster calls the application: the webhook that is sent the events, and the audience webhook that
// is asked for the contacts of users. docs/webhooks.md is the guide.
//
// The events of a shard are a stream in the shard itself, with a cursor beside it. Whoever leads the shard runs one worker,
// which reads on from the cursor, sends a batch, waits for a 2xx and moves the cursor. So the order of a subject's events is
// kept by having one batch of a shard on the way at a time, an event is sent at least once whoever dies, and nothing is queued in
// memory. A batch that is refused for a day is put away as letters, in the write that moves the cursor on, so that it neither
// stops the others for ever nor vanishes.
//
// The first event after a quiet time goes at once; what follows within 500 ms goes together.
package hooks
