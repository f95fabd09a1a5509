//go:build linux

package bench

import (
	"encoding/json"
	"strings"
	"testing"
)

// A cluster is ready to be measured when its cores share the leading and hold each shard three times.
func TestUneven(t *testing.T) {
	const fair = `{"nodes":[{"name":"core1","role":"core","state":"active","leads":2},{"name":"core2","role":"core","state":"active","leads":1},{"name":"core3","role":"core","state":"active","leads":1},{"name":"edge1","role":"edge","state":"active"}],
		"shards":[{"leader":"core1","voters":["core1","core2","core3"]},{"leader":"core1","voters":["core1","core2","core3"]},{"leader":"core2","voters":["core1","core2","core3"]},{"leader":"core3","voters":["core1","core2","core3"]}]}`
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"leads":2`, `"leads":3`, "core1 leads 3 of 4"},
		{`"state":"active","leads":1`, `"state":"joining","leads":1`, "2 cores are active"},
		{`"leader":"core3"`, `"leader":""`, `leader ""`},
		{`"voters":["core1","core2","core3"]},`, `"voters":["core1","core2"]},`, "2 voters"},
		{`"leader":"core3"`, `"leader":"core3","moving":true`, "moving true"},
	} {
		var doc clusterDoc
		if err := json.Unmarshal([]byte(strings.Replace(fair, c.old, c.new, 1)), &doc); err != nil {
			t.Fatal(err)
		}
		err := doc.uneven(3)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
}
