package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds of what a client may take before its request is known. They end with a
// WebSocket handshake, which takes the connection over.
const (
	headerTimeout = 5 * time.Second  // TLS handshake, and request line with headers
	readTimeout   = 15 * time.Second // whole request
	writeTimeout  = 30 * time.Second // whole answer
	idleTimeout   = 60 * time.Second // between two requests
	maxHeader     = 16 << 10         // bytes; a bearer token of 8 KiB fits
)

// Open listens on a TCP address. sendBuffer is SO_SNDBUF of each connection in
// bytes, 0 the system's; it is set on the listening socket, which connections
// inherit it from, so an accept costs no extra system call. TCP keep-alive is off:
// WebSockets are pinged and idle HTTP connections are closed.
func Open(ctx context.Context, addr string, sendBuffer int) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: control(sendBuffer)}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

// NewServer makes an HTTP/1.1 server with time-outs: WebSockets need 1.1, and the
// API gains nothing from more. What net/http complains about is logged at debug
// level, as strangers cause it.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.Default()
	}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	return srv
}

// Serve runs srv until ctx is done, then lets requests end within grace and closes
// what is left. A nil certificate serves plain HTTP. It returns nil after an orderly
// end, and the reason otherwise. Hijacked connections are not waited for.
func Serve(ctx context.Context, srv *http.Server, ln net.Listener, cert *Certificate, grace time.Duration) error {
	if cert != nil {
		ln = tls.NewListener(ln, cert.Config())
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("listen: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
