//go:build linux

package chaos

import (
	"fmt"
	"strings"
	"testing"
)

func TestEven(t *testing.T) {
	spread := func(leads ...int) (s clusterState) {
		shards := `[`
		for i, n := range leads {
			for range n {
				shards += fmt.Sprintf(`{"leader":"c%d","voters":["c0","c1","c2"]},`, i)
			}
		}
		shards = strings.TrimSuffix(shards, ",") + "]"
		mustDecode(t, `{"nodes":[{"name":"c0","state":"active"},{"name":"c1","state":"active"},{"name":"c2","state":"active"},{"name":"e1","role":"edge","state":"active"},{"name":"c9","state":"lost"}],"shards":`+shards+`}`, &s)
		return s
	}
	if v := even(spread(22, 17, 25)); len(v.Violations) > 0 || v.Examined != 3 {
		t.Errorf("%+v", v)
	}
	if v := even(spread(32, 32, 0)); len(v.Violations) != 3 {
		t.Errorf("%+v", v)
	}
}
