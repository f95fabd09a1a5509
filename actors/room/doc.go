// Package room is the pure core of a small room: who is in it, what the others are
// told, and when. It has no I/O, clock, goroutine, lock, log or randomness.
//
// A session enters to occupy (it is seen), to subscribe (it sees), or both. A user
// occupies while one of its sessions does. A lost conn starts a grace that depends
// on the cause; an enter of the same session within it keeps the place and nobody
// learns of it. Leaving on purpose takes effect at once. When the room moves to another node in good order, the places
// in grace go with it (Leaving, Handed); the others are announced there by their edges.
//
// A hidden (invisible) occupant is counted and listed nowhere, does not move the
// version, and going hidden looks like leaving on purpose.
//
// What subscribers are told is the difference between what they were last told and
// what is: per user the latest wins. The first change goes at once, what follows
// within 100 ms is joined. Each edge with subscribers gets one message.
package room
