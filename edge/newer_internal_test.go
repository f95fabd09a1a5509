package edge

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
)

// What a newer core adds to a message is ignored, and a message that it alone knows is counted and hurts nothing.
func TestMessagesOfANewerCore(t *testing.T) {
	r := newRig(t)
	p := r.peer("b", "a")
	more := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 3000, protowire.BytesType), "of a newer build"))
	}
	alien := &link.Down{}
	more(alien)
	view := &link.View{Mask: uint32(presence.AllFields), State: uint32(presence.DND), Since: 1}
	change := &link.Change{App: "default", User: "a", Version: 6, Views: []*link.View{view}}
	known := &link.Down{Body: &link.Down_Change{Change: change}}
	for _, m := range []proto.Message{view, change, known} {
		more(m)
	}
	for _, d := range []*link.Down{alien, known} {
		b, err := proto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got := &link.Down{}
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		r.core.say(userShard(presence.Key{App: "default", User: "a"}), got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, b, err := p.ws.Read(ctx)
		if err != nil {
			t.Fatal("the change was not told: ", err)
		}
		if strings.Contains(string(b), `"dnd"`) {
			break
		}
	}
	if n := r.edge.Stats().Unknown; n != 1 {
		t.Errorf("%d messages not known", n)
	}
}
