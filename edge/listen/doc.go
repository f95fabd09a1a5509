// Package listen opens the server's ports: TCP with the options that many sockets
// need, TLS whose certificate may change on disk, time-outs against clients that
// send a byte a minute, and the client's address behind trusted proxies.
package listen
