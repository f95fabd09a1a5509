package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// behindProxies sets RemoteAddr to the client's address for requests that come through
// trusted proxies: the last address of X-Forwarded-For that is not one of them.
func behindProxies(h http.Handler, networks []string) http.Handler {
	var trusted []netip.Prefix
	for _, network := range networks {
		if p, err := netip.ParsePrefix(network); err == nil {
			trusted = append(trusted, p)
		}
	}
	if len(trusted) == 0 {
		return h
	}
	isTrusted := func(ip netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(ip.Unmap()) {
				return true
			}
		}
		return false
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, port, err := net.SplitHostPort(r.RemoteAddr)
		peer, perr := netip.ParseAddr(host)
		if err != nil || perr != nil || !isTrusted(peer) {
			h.ServeHTTP(w, r)
			return
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			ip, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			peer = ip
			if !isTrusted(ip) {
				break
			}
		}
		r = r.Clone(r.Context())
		r.RemoteAddr = net.JoinHostPort(peer.String(), port)
		h.ServeHTTP(w, r)
	})
}
