// The client example of the README, which a test runs.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"muster/clients/go"
)

func main() {
	ctx, url, token := context.Background(), os.Getenv("MUSTER_URL"), os.Getenv("MUSTER_TOKEN")

	client, err := muster.Dial(ctx, url, muster.Options{Token: token, Watch: []string{"ann", "bob"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	client.SetStatus(ctx, muster.Status{State: muster.DND, Text: "in a call"})
	for change := range client.View().Changes(ctx) { // begins with those who are there
		fmt.Println(change.User, change.Presence.State, change.Presence.Text)
	}
}
