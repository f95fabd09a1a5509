package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is a key pair on disk that is read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

// tlsConfig reads the key pair and serves it to clients from then on.
func tlsConfig(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	c.pair, c.stamp = &pair, c.modified()
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // WebSocket upgrades
		GetCertificate: c.get,
	}, nil
}

func (c *certificate) modified() (stamp [2]time.Time) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			stamp[i] = info.ModTime()
		}
	}
	return stamp
}

// get looks at the files at most once a second. A pair that cannot be read is logged,
// and the one before stays.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < time.Second {
		return c.pair, nil
	}
	c.checked = time.Now()
	stamp := c.modified()
	if stamp == c.stamp {
		return c.pair, nil
	}
	c.stamp = stamp
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Error("the changed certificate cannot be read, the one before stays", "error", err)
		return c.pair, nil
	}
	c.log.Info("certificate read again")
	c.pair = &pair
	return c.pair, nil
}
