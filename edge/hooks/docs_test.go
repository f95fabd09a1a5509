package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"muster/actors/link"
)

func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil {
		http.Error(w, "cannot read", http.StatusBadRequest)
		return
	}
	key, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil || key.Verify(body, r.Header) != nil {
		http.Error(w, "not from Muster", http.StatusUnauthorized)
		return
	}
	var batch struct {
		Events []struct {
			EventID string          `json:"event_id"`
			Type    string          `json:"type"`
			User    string          `json:"user"`
			Data    json.RawMessage `json:"data"`
		} `json:"events"`
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	for _, e := range batch.Events {
		fmt.Println(e.EventID, e.Type, e.User)
	}
}

// The receiver of the guide takes what is signed, and nothing else.
func Example() {
	os.Setenv("WEBHOOK_SECRET", newSecret)
	srv := httptest.NewServer(http.HandlerFunc(receive))
	defer srv.Close()
	for _, secret := range []string{newSecret, oldSecret} {
		s, err := newSender(srv.URL, false, []string{secret}, 1, time.Second)
		if err != nil {
			panic(err)
		}
		_, err = s.post(context.Background(), "12-1-7_7", []byte(`{"events":[{"event_id":"12-1-7","type":"user.online","user":"alice"}]}`), nil, 0)
		fmt.Println(err)
		s.client.CloseIdleConnections()
	}
	// Output:
	// 12-1-7 user.online alice
	// <nil>
	// the webhook answered 401
}

var fenced = regexp.MustCompile("(?s)```(json|go)\n(.*?)```")

// The guide shows what is sent, code that runs, and the metrics there are.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := fenced.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	w := &worker{shard: 12}
	_, body, err := w.encode([]*link.Event{
		{Seq: 7, Generation: 1, App: "default", User: "alice", Type: "user.online", At: 1_800_000_000_000, Json: `{"state":"online","since_at":1800000000000}`},
		{Seq: 8, Generation: 1, App: "default", User: "alice", Type: "user.state", At: 1_800_000_060_000, Json: `{"state":"dnd","since_at":1800000060000,"text":"in a call","emoji":"📞"}`},
		{Seq: 9, Generation: 1, App: "default", User: "alice", Type: "user.offline", At: 1_800_000_120_000, Json: `{"reason":"explicit","last_seen_at":1800000120000}`},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal([]byte(blocks[0][2]), &want); err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(body, &got); !reflect.DeepEqual(got, want) {
		t.Errorf("the guide shows\n%s\nsent is\n%s", blocks[0][2], body)
	}
	self, err := os.ReadFile("docs_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(self), blocks[1][2]) {
		t.Error("the receiver of the guide is not the one that is tested here")
	}
	reg := prometheus.NewRegistry()
	d, err := New(Config{URL: "https://a.example", Secrets: []string{newSecret}, Source: newStore(), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.metrics.request(nil, 0)
	families, err := reg.Gather()
	if err != nil || len(families) != 5 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for _, f := range families {
		if !strings.Contains(string(text), "`"+f.GetName()+"`") {
			t.Errorf("%s is not in the guide", f.GetName())
		}
	}
}
