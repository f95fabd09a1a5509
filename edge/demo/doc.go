// Package demo is the page that a server in --dev shows at /: sign in under any name,
// watch others come and go, be more than one device. It is for trying Muster out and
// for its browser test, and the shortest example of what the JavaScript client does.
//
// It hands out tokens to whoever asks, so it must never be mounted without --dev.
package demo
