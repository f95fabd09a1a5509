//go:build linux

package chaos

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// A front that is not there makes no gap of a shard that another front can write to; a shard that refuses does.
func TestProbeGoesPastDeadFronts(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"results":[{"offset":1}]}`)
	}))
	defer server.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	at := func(addr string) place {
		ap := netip.MustParseAddrPort(addr)
		return place{ip: ap.Addr().String(), ports: ports{api: int(ap.Port())}}
	}
	l := newLoad(t.Context(), &record{start: time.Now()}, []place{at(gone.Addr().String()), at(server.Listener.Addr().String())}, Options{})
	defer l.http.CloseIdleConnections()
	if !l.probeOnce(t.Context(), 0, time.Minute, 3, "q") || len(l.probes) != 1 || !l.probes[0].ok || len(l.sends) != 1 {
		t.Errorf("a dead front: %+v", l.probes)
	}
	status = http.StatusServiceUnavailable
	if l.probeOnce(t.Context(), 0, time.Minute, 3, "q") || len(l.probes) != 2 || l.probes[1].ok {
		t.Errorf("a shard that refuses: %+v", l.probes)
	}
}

// A cluster is not whole while a node that has lost its disk votes anywhere, even if another one has its name.
func TestWholeWithoutTheLost(t *testing.T) {
	for text, whole := range map[string]bool{
		`{"nodes":[{"name":"c1","state":"active","holds":64,"meta":true}]}`:                                        true,
		`{"nodes":[{"name":"c1","state":"active","holds":64},{"name":"c1","state":"lost"}]}`:                       true,
		`{"nodes":[{"name":"c1","state":"active","holds":63},{"name":"c1","state":"lost","holds":1}]}`:             false,
		`{"nodes":[{"name":"c1","state":"active","holds":64},{"name":"c1","state":"lost","holds":0,"meta":true}]}`: false,
		`{"shards":[{"shard":1,"leader":"","voters":["c1","c2","c3"]}]}`:                                           false,
		`{"shards":[{"shard":1,"leader":"c1","voters":["c1","c2","c3"]}]}`:                                         true,
	} {
		var s clusterState
		mustDecode(t, text, &s)
		if lacks := s.lacks(3); (lacks == "") != whole {
			t.Errorf("%s: lacks %q", text, lacks)
		}
	}
}

func mustDecode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
