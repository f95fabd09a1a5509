package listen

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestClient(t *testing.T) {
	proxies, err := ParseProxies([]string{"10.0.0.0/8", "192.0.2.1", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		peer      string
		xff       []string
		forwarded []string
		want      string
	}{
		"direct":                     {"203.0.113.9:1", nil, nil, "203.0.113.9"},
		"direct, lies":               {"203.0.113.9:1", []string{"1.1.1.1"}, []string{"for=1.1.1.1"}, "203.0.113.9"},
		"direct IPv6":                {"[2001:db8::1]:1", nil, nil, "2001:db8::1"},
		"mapped":                     {"[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, nil, "203.0.113.9"},
		"proxy says nothing":         {"10.0.0.1:1", nil, nil, "10.0.0.1"},
		"one proxy":                  {"10.0.0.1:1", []string{"203.0.113.9"}, nil, "203.0.113.9"},
		"client lies to the proxy":   {"10.0.0.1:1", []string{"1.1.1.1, 203.0.113.9"}, nil, "203.0.113.9"},
		"lies with a proxy's":        {"10.0.0.1:1", []string{"10.0.0.7, 203.0.113.9"}, nil, "203.0.113.9"},
		"two proxies":                {"10.0.0.1:1", []string{"203.0.113.9, 192.0.2.1"}, nil, "203.0.113.9"},
		"two lines":                  {"10.0.0.1:1", []string{"1.1.1.1", "203.0.113.9", "10.2.2.2"}, nil, "203.0.113.9"},
		"all are proxies":            {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, nil, "10.0.0.3"},
		"garbage":                    {"10.0.0.1:1", []string{"203.0.113.9, what"}, nil, "10.0.0.1"},
		"garbage before a proxy":     {"10.0.0.1:1", []string{"what, 10.0.0.2"}, nil, "10.0.0.2"},
		"empty entry":                {"10.0.0.1:1", []string{"203.0.113.9,"}, nil, "10.0.0.1"},
		"with ports":                 {"10.0.0.1:1", []string{"203.0.113.9:4711"}, nil, "203.0.113.9"},
		"IPv6 with port":             {"10.0.0.1:1", []string{"[2001:db8::9]:4711"}, nil, "2001:db8::9"},
		"IPv6 in brackets":           {"10.0.0.1:1", []string{"[2001:db8::9]"}, nil, "2001:db8::9"},
		"forwarded":                  {"10.0.0.1:1", nil, []string{`for=203.0.113.9;proto=https;by=10.0.0.1`}, "203.0.113.9"},
		"forwarded, quoted IPv6":     {"10.0.0.1:1", nil, []string{`proto=https; For="[2001:db8::9]:47"`}, "2001:db8::9"},
		"forwarded, chain":           {"10.0.0.1:1", nil, []string{`for=1.1.1.1, for=203.0.113.9`, `for=10.3.3.3`}, "203.0.113.9"},
		"forwarded, hidden":          {"10.0.0.1:1", nil, []string{`for=_secret`}, "10.0.0.1"},
		"forwarded, without for":     {"10.0.0.1:1", nil, []string{`proto=https`}, "10.0.0.1"},
		"both agree":                 {"10.0.0.1:1", []string{"203.0.113.9"}, []string{`for=203.0.113.9`}, "203.0.113.9"},
		"both, one of them a lie":    {"10.0.0.1:1", []string{"203.0.113.9"}, []string{`for=1.1.1.1`}, "10.0.0.1"},
		"IPv6 proxy":                 {"[fd00::1]:1", []string{"203.0.113.9"}, nil, "203.0.113.9"},
		"IPv6 proxy with zone":       {"[fd00::1%eth0]:1", []string{"203.0.113.9"}, nil, "203.0.113.9"},
		"mapped address in a header": {"10.0.0.1:1", []string{"::ffff:203.0.113.9"}, nil, "203.0.113.9"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.xff
			r.Header["Forwarded"] = c.forwarded
			if got := proxies.Client(r); got != netip.MustParseAddr(c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestProxyHandler(t *testing.T) {
	var got string
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })
	proxies, err := ParseProxies([]string{"10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		proxies    Proxies
		peer, want string
	}{
		{nil, "10.0.0.1:5", "10.0.0.1:5"},
		{proxies, "10.0.0.1:5", "203.0.113.9:0"},
		{proxies, "10.0.0.2:5", "10.0.0.2:5"},
		{proxies, "@", "@"}, // a unix socket
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		c.proxies.Handler(next).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want || r.RemoteAddr != c.peer {
			t.Errorf("peer %s: %s, want %s", c.peer, got, c.want)
		}
	}
}

func TestParseProxies(t *testing.T) {
	for _, bad := range []string{"", "x", "10.0.0.0/33", "0.0.0.0/0", "::/0", "fe80::1%eth0"} {
		if p, err := ParseProxies([]string{bad}); err == nil {
			t.Errorf("%q accepted as %v", bad, p)
		}
	}
}

func FuzzClient(f *testing.F) {
	proxies, err := ParseProxies([]string{"10.0.0.0/8"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("10.0.0.1:1", "1.1.1.1, [::1]:2", `for="[::1]";by=x, for=_x`)
	f.Fuzz(func(t *testing.T, peer, xff, forwarded string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {xff}, "Forwarded": {forwarded}}}
		got := proxies.Client(r)
		ap, err := netip.ParseAddrPort(peer)
		if err != nil {
			if got.IsValid() {
				t.Fatalf("%s for peer %q", got, peer)
			}
			return
		}
		if from := ap.Addr().Unmap().WithZone(""); !proxies.trusts(from) && got != from {
			t.Fatalf("a stranger, %s, was believed to be %s", from, got)
		}
	})
}
