package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	reloadEvery  = 10 * time.Second   // how often the files are looked at
	expiresSoon  = 7 * 24 * time.Hour // warned about, once a day
	warningEvery = 24 * time.Hour
)

// Certificate is a TLS certificate in two PEM files that may change at any time.
// The last good one stays in use while the files are broken, do not fit each other
// or hold one that is not valid now. Safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[loaded]
}

type loaded struct {
	tls     tls.Certificate
	to      time.Time // end of its validity
	content []byte    // of both files
}

// LoadCertificate reads the files: the certificate with its chain, and the key. It
// refuses a certificate that is not valid now.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	if log == nil {
		log = slog.Default()
	}
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	content, err := c.read()
	if err != nil {
		return nil, err
	}
	l, err := parse(content)
	if err != nil {
		return nil, err
	}
	c.current.Store(l)
	return c, nil
}

// Expires is the end of the validity of the certificate in use.
func (c *Certificate) Expires() time.Time { return c.current.Load().to }

// Config is TLS 1.2 or newer with the certificate in use at each handshake.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &c.current.Load().tls, nil
		},
	}
}

// Watch takes up changes of the files until ctx is done. It compares contents, not
// times: a mount that swaps links, or two writes within a tick, is seen all the same.
func (c *Certificate) Watch(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	var refused []byte // content that was logged as broken; said once
	var warned time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		refused = c.reload(refused)
		if now := time.Now(); c.Expires().Sub(now) < expiresSoon && now.Sub(warned) >= warningEvery {
			warned = now
			c.log.Warn("TLS certificate expires soon", "file", c.certFile, "expires", c.Expires())
		}
	}
}

// reload takes up the files if they changed and are good. It returns the content
// that was refused, nil if none is.
func (c *Certificate) reload(refused []byte) []byte {
	content, err := c.read()
	if err != nil {
		content = []byte(err.Error())
	} else if bytes.Equal(content, c.current.Load().content) {
		return nil
	}
	if bytes.Equal(content, refused) {
		return refused
	}
	var l *loaded
	if err == nil {
		l, err = parse(content)
	}
	if err != nil {
		c.log.Error("new TLS certificate not taken, the last one stays", "file", c.certFile, "error", err, "expires", c.Expires())
		return content
	}
	c.current.Store(l)
	c.log.Info("TLS certificate reloaded", "file", c.certFile, "expires", l.to)
	return nil
}

// A NUL cannot be in PEM: it separates the two files.
func (c *Certificate) read() ([]byte, error) {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS key: %w", err)
	}
	return bytes.Join([][]byte{cert, key}, []byte{0}), nil
}

func parse(content []byte) (*loaded, error) {
	cert, key, _ := bytes.Cut(content, []byte{0})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	leaf := pair.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("TLS certificate: %w", err)
		}
	}
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("TLS certificate: expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("TLS certificate: not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case leaf.IsCA && len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return nil, errors.New("TLS certificate: the first one is an authority's; the server's own must come first")
	}
	return &loaded{tls: pair, to: leaf.NotAfter, content: content}, nil
}
