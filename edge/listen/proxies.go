package listen

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the networks whose word on a client's address is believed.
type Proxies []netip.Prefix

// ParseProxies reads networks (10.0.0.0/8, fd00::/8) and single addresses.
func ParseProxies(list []string) (Proxies, error) {
	var p Proxies
	for _, s := range list {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("trusted proxy %q: want a network like 10.0.0.0/8 or an address", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Bits() == 0 {
			return nil, fmt.Errorf("trusted proxy %q: trusting every address lets each client choose its own", s)
		}
		p = append(p, prefix.Masked())
	}
	return p, nil
}

func (p Proxies) trusts(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Client is the address of the client that a request comes from: the peer's, or, if
// the peer is a trusted proxy, the last address in X-Forwarded-For or Forwarded that
// is not one. Both headers are read from the right, as all to the left of the first
// stranger is the stranger's invention. If both are there and do not agree neither
// is believed: the proxy wrote one, and the client may have written the other.
func (p Proxies) Client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap().WithZone("")
	if !p.trusts(addr) {
		return addr
	}
	xff, forwarded := r.Header.Values("X-Forwarded-For"), r.Header.Values("Forwarded")
	byXFF := p.stranger(addr, xff, bare)
	byForwarded := p.stranger(addr, forwarded, forParam)
	switch {
	case len(forwarded) == 0:
		return byXFF
	case len(xff) == 0:
		return byForwarded
	case byXFF == byForwarded:
		return byXFF
	}
	return addr
}

// stranger walks a header from the right to the first address that is no trusted
// proxy. An entry that is no address ends the walk at the proxy that wrote it.
func (p Proxies) stranger(peer netip.Addr, lines []string, read func(string) string) netip.Addr {
	found := peer
	for i := len(lines) - 1; i >= 0; i-- {
		entries := strings.Split(lines[i], ",")
		for j := len(entries) - 1; j >= 0; j-- {
			addr, ok := parseAddr(read(strings.TrimSpace(entries[j])))
			if !ok {
				return found
			}
			found = addr
			if !p.trusts(addr) {
				return found
			}
		}
	}
	return found
}

func bare(entry string) string { return entry }

// forParam is the value of for= in an element of Forwarded (RFC 7239).
func forParam(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// parseAddr reads an address with or without brackets and port.
func parseAddr(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if rest, ok := strings.CutPrefix(s, "["); ok {
		s = strings.TrimSuffix(rest, "]")
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

// Handler gives next requests whose RemoteAddr is the client's.
func (p Proxies) Handler(next http.Handler) http.Handler {
	if len(p) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if client := p.Client(r); err == nil && client != peer.Addr().Unmap().WithZone("") {
			r = r.WithContext(r.Context())
			r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		}
		next.ServeHTTP(w, r)
	})
}
