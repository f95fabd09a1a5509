package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"
)

var errPlain = errors.New("stream: without a cluster secret nodes talk over loopback addresses only")

// loopback says whether an address can be reached from this machine alone.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// prover makes this node's certificate when a handshake needs one.
type prover struct {
	mu   sync.Mutex
	cert *tls.Certificate
	of   identity
	at   time.Time
}

func (p *prover) certificate(k *Keys, id identity) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.cert == nil || p.of != id || now.Sub(p.at) > renewCert {
		cert, err := k.certificate(id, now)
		if err != nil {
			return nil, err
		}
		p.cert, p.of, p.at = cert, id, now
	}
	return p.cert, nil
}

// credentials of both roles; every handshake uses what the node is at that moment.
func (n *Net) credentials() credentials.TransportCredentials {
	k := n.cfg.Keys
	if k == nil {
		return &creds{insecure.NewCredentials(), n}
	}
	own := func() (*tls.Certificate, error) {
		return n.prover.certificate(k, identity{n.cluster(), n.cfg.Self.Node})
	}
	return &creds{credentials.NewTLS(&tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // of names; VerifyConnection checks the chain and the identity
		VerifyConnection:       k.verify,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
	}), n}
}

// creds says aloud whom it refuses and remembers the socket, for closing it.
type creds struct {
	credentials.TransportCredentials
	net *Net
}

type authInfo struct {
	credentials.AuthInfo
	raw net.Conn
}

func (c *creds) Clone() credentials.TransportCredentials {
	return &creds{c.TransportCredentials.Clone(), c.net}
}

func (c *creds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		if !errors.Is(err, io.EOF) { // of a peer that looks whether the port answers
			host, _, _ := net.SplitHostPort(raw.RemoteAddr().String())
			c.net.quiet.warn("a connection was refused", host, "from", raw.RemoteAddr().String(), "why", err.Error())
		}
		return nil, nil, err
	}
	return conn, authInfo{info, raw}, nil
}

// proven checks that a handshake's words are those of the certificate; it returns the socket.
func proven(ctx context.Context, claimed identity) (net.Conn, error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, errors.New("no peer")
	}
	info, raw := p.AuthInfo, net.Conn(nil)
	if a, ok := info.(authInfo); ok {
		info, raw = a.AuthInfo, a.raw
	}
	secure, ok := info.(credentials.TLSInfo)
	if !ok {
		return raw, nil // plain
	}
	is, err := identityOf(secure.State.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	if is != claimed {
		return nil, fmt.Errorf("a node says it is node %x of cluster %q, its certificate is for node %x of cluster %q", claimed.node, claimed.cluster, is.node, is.cluster)
	}
	return raw, nil
}
