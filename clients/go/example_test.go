package muster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"

	muster "muster/clients/go"
	"muster/clients/wire"
)

// server answers like a small Muster on which ann is online, bob comes, and no one else is there.
func server() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			_, frame, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			var cmd wire.Command
			if wire.Decode(frame, &cmd) != nil {
				return
			}
			for _, line := range answers(&cmd) {
				if ws.Write(r.Context(), websocket.MessageText, []byte(line)) != nil {
					return
				}
			}
		}
	}))
}

func answers(c *wire.Command) []string {
	const ann = `{"user":"ann","state":"online","ver":[1,1],"text":"here","devices":{"mobile":"online"}}`
	switch m := c.Method.(type) {
	case *wire.Command_Connect:
		if m.Connect.Token == "expired" {
			return []string{fmt.Sprintf(`{"id":%d,"error":{"code":109,"name":"TOKEN_EXPIRED","message":"the token has expired"}}`, c.Id)}
		}
		return []string{
			fmt.Sprintf(`{"id":%d,"connect":{"session_id":"s","user":"me","ping_ms":20000,"presences":[%s],"done":true%s}}`, c.Id, ann, outbox(m.Connect)),
			`{"push":{"presence":[{"user":"bob","state":"away","ver":[1,2]}]}}`,
		}
	case *wire.Command_Query:
		return []string{fmt.Sprintf(`{"id":%d,"query":{"presences":[%s],"done":true}}`, c.Id, ann)}
	case *wire.Command_Status:
		return []string{fmt.Sprintf(`{"id":%d,"status":{}}`, c.Id)}
	case *wire.Command_Publish:
		return []string{fmt.Sprintf(`{"id":%d,"publish":{"client_id":"%s","at":1789000000000}}`, c.Id, m.Publish.ClientId)}
	case *wire.Command_RoomEnter:
		return []string{fmt.Sprintf(`{"id":%d,"room.enter":{"room":"page-7","ver":[1,3],"occupants":[{"user":"ann","state":"online"},{"user":"me","state":"online"}],"count":2}}`, c.Id)}
	case *wire.Command_Bye:
		return []string{fmt.Sprintf(`{"id":%d,"bye":{}}`, c.Id)}
	}
	return nil
}

func outbox(c *wire.Connect) string {
	if c.Outbox == nil {
		return ""
	}
	return `,"outbox":{"epoch":"77a1","head":32,"entries":[{"offset":31,"from":"ann","body":"hi"},{"offset":32,"from":"ann","body":"are you there?"}]}`
}

// Watch two users and follow what they do.
func Example() {
	srv := server()
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	client, err := muster.Dial(ctx, srv.URL, muster.Options{
		Token: "a JWT for me", DeviceID: "laptop-1", Watch: []string{"ann", "bob"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	for change := range client.View().Changes(ctx) {
		if change.Kind == muster.Enter {
			fmt.Println(change.User, change.Presence.State)
		}
		if change.User == "bob" && change.Presence.State == muster.Away {
			break
		}
	}
	// Output:
	// ann online
	// bob away
}

// Ask once, without watching.
func ExampleClient_Query() {
	srv := server()
	defer srv.Close()
	ctx := context.Background()
	client, err := muster.Dial(ctx, srv.URL, muster.Options{Token: "a JWT for me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	users, err := client.Query(ctx, "ann", "cid")
	for _, u := range users {
		fmt.Println(u.User, u.State, u.Text, u.Devices)
	}
	fmt.Println(err)
	// Output:
	// ann online here [{mobile online}]
	// cid offline  []
	// <nil>
}

// Say what you are doing, and leave without a trace.
func ExampleClient_SetStatus() {
	srv := server()
	defer srv.Close()
	ctx := context.Background()
	client, err := muster.Dial(ctx, srv.URL, muster.Options{Token: "a JWT for me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = client.SetStatus(ctx, muster.Status{State: muster.DND, Text: "in a call", TTL: 30 * time.Minute})
	fmt.Println(err)
	fmt.Println(client.Bye(ctx))
	// Output:
	// <nil>
	// <nil>
}

// Who is on this page?
func ExampleClient_EnterRoom() {
	srv := server()
	defer srv.Close()
	ctx := context.Background()
	client, err := muster.Dial(ctx, srv.URL, muster.Options{Token: "a JWT for me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	room, err := client.EnterRoom(ctx, muster.RoomOptions{Room: "page-7", Info: map[string]string{"name": "Me"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, o := range room.Occupants() {
		fmt.Println(o.User, o.State)
	}
	// Output:
	// ann online
	// me online
}

// Errors are typed: the code says what to do.
func ExampleError() {
	srv := server()
	defer srv.Close()
	_, err := muster.Dial(context.Background(), srv.URL, muster.Options{Token: "expired"})
	var refused *muster.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Name, refused.Retryable)
	}
	fmt.Println(errors.Is(err, &muster.Error{Code: wire.CodeTokenExpired}))
	// Output:
	// TOKEN_EXPIRED false
	// true
}

// Read what came while this device was away, each entry once.
func ExampleOutbox_Deliveries() {
	srv := server()
	defer srv.Close()
	ctx := context.Background()
	client, err := muster.Dial(ctx, srv.URL, muster.Options{
		Token: "a JWT for me", DeviceID: "laptop-1", Outbox: new(muster.MemoryPosition), // better: one in the database
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	for d := range client.Outbox().Deliveries(ctx) {
		switch {
		case d.Entry != nil:
			fmt.Println(d.Entry.From, string(d.Entry.Body)) // and store d.Position with what came of it
		case d.Gap != nil:
			fmt.Println("missed", d.Gap.From, "to", d.Gap.To, d.Gap.Reason)
		case d.Reset:
			fmt.Println("fetch everything again")
		}
		if d.Position.Offset == 32 {
			break
		}
	}
	// Output:
	// ann "hi"
	// ann "are you there?"
}

// Leave a message for someone, there or not.
func ExampleClient_Publish() {
	srv := server()
	defer srv.Close()
	ctx := context.Background()
	client, err := muster.Dial(ctx, srv.URL, muster.Options{Token: "a JWT for me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	receipt, err := client.Publish(ctx, "ann", muster.Message{Body: map[string]string{"text": "see you at ten"}})
	fmt.Println(receipt.At.UTC(), err)
	// Output:
	// 2026-09-10 00:26:40 +0000 UTC <nil>
}
