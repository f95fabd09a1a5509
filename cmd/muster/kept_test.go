package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	sdk "muster/clients/go"
)

// A restart forgets nothing that a user was told is kept.
func TestRestartKeepsWhatUsersOwn(t *testing.T) {
	dir := t.TempDir()
	p, url, api := serveChild(t, "--data", dir, "--events", "--grace-gone", "0s")
	ann := connectTo(t, url, "ann", "d1")
	ann.command(`"status":{"state":"dnd","text":"writing"}`)
	ann.command(`"claim":{"id":"trip","source":"calendar","state":"away","text":"away","ttl_ms":3600000}`)
	ann.command(`"audience":{"last_seen":{"rule":"nobody"}}`)
	ann.command(`"block":{"add":["mallory"]}`)
	ann.command(`"contact":{"user":"bob","action":"subscribe"}`)
	ann.command(`"device":{"provider":"fcm","token":"tok"}`)
	bob := connectTo(t, url, "bob", "d1")
	bob.command(`"contact":{"user":"ann","action":"approve"}`)
	eve := connectTo(t, url, "eve", "d1")
	eve.command(`"status":{"state":"invisible"}`)
	gone := connectTo(t, url, "gone", "d1")
	gone.command(`"bye":{}`)
	ids := storeFor(t, api, "carl", 7)
	phone := new(sdk.MemoryPosition)
	first := (&campaign{t: t, url: url}).outboxOf("carl", "phone", phone, 3) // reads three, then goes
	call(t, api, "/v1/users/dan/revoke", `{}`)
	before := explained(t, api)
	p.signal(15)
	if code := p.exit(); code != 0 {
		t.Fatalf("exit code %d: %q", code, p.lines)
	}

	_, url, api = serveChild(t, "--data", dir, "--events", "--grace-gone", "0s")
	after := explained(t, api)
	for user, doc := range before {
		for _, part := range []string{"claims", "rules", "invisible", "contacts", "blocked"} {
			if was, is := member(doc, part), member(after[user], part); was != is {
				t.Errorf("%s: %s was %s, is %s", user, part, was, is)
			}
		}
	}
	ann = connectTo(t, url, "ann", "d1")
	if self := ann.self(); !strings.Contains(self, `"writing"`) || !strings.Contains(self, `"trip"`) || !strings.Contains(self, `"nobody"`) {
		t.Errorf("ann's own view after the restart: %s", self)
	}
	eve = connectTo(t, url, "eve", "d1")
	if self := eve.self(); !strings.Contains(self, `"invisible":true`) {
		t.Errorf("eve's own view after the restart: %s", self)
	}
	contacts := ann.answer(`"contacts":{}`)
	if !strings.Contains(contacts, `"bob"`) || !strings.Contains(contacts, `"mallory"`) || !strings.Contains(contacts, `"blocked":true`) {
		t.Errorf("contacts after the restart: %s", contacts)
	}
	if seen := call(t, api, "/v1/presence", `{"users":["gone"]}`); !strings.Contains(seen, "last_seen") {
		t.Errorf("last seen after the restart: %s", seen)
	}
	d, _, err := dial(t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.send(`{"id":1,"connect":{"token":"` + tokenFor(t, "dan") + `","device_id":"d"}}`)
	if code := d.code(); code != 4505 && code != 4504 {
		t.Errorf("a revoked token is let in after the restart: close code %d", code)
	}
	rest := (&campaign{t: t, url: url}).outboxOf("carl", "phone", phone, 4)
	if got := strings.Join(append(first, rest...), " "); got != strings.Join(ids, " ") {
		t.Errorf("carl's phone got %s, want %s", got, ids)
	}
}

// connectTo opens a session with a running server.
func connectTo(t *testing.T, url, user, deviceID string, more ...string) *device {
	t.Helper()
	d, _, err := dial(t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	members := append([]string{fmt.Sprintf(`"token":%q,"device_id":%q,"attempt":%d`, tokenFor(t, user), deviceID, time.Now().UnixNano())}, more...)
	d.send(fmt.Sprintf(`{"id":1,"connect":{%s}}`, strings.Join(members, ",")))
	d.await("the answer to connect", func() bool { return d.ready || d.closed != nil })
	if !d.ready {
		t.Fatalf("%s was not let in: %v %q", user, d.closed, d.raw)
	}
	return d
}

// answer sends a command, such as `"contacts":{}`, and returns the line that answers it.
func (d *device) answer(command string) string {
	d.t.Helper()
	d.mu.Lock()
	d.last++
	id, from := 100+d.last, len(d.raw)
	d.mu.Unlock()
	d.send(fmt.Sprintf(`{"id":%d,%s}`, id, command))
	var line string
	d.await("the answer to "+command, func() bool {
		for _, l := range d.raw[from:] {
			if strings.HasPrefix(l, fmt.Sprintf(`{"id":%d,`, id)) {
				line = l
			}
		}
		return line != ""
	})
	return line
}

// command sends a command that must not be refused.
func (d *device) command(command string) {
	d.t.Helper()
	if line := d.answer(command); strings.Contains(line, `"error":{`) {
		d.t.Fatalf("%s: %s", command, line)
	}
}

// self is the line that holds the user's own view as connect gave it.
func (d *device) self() (line string) {
	d.t.Helper()
	d.await("own view", func() bool {
		for _, l := range d.raw {
			if strings.Contains(l, `"self":{`) {
				line = l
			}
		}
		return line != ""
	})
	return line
}

// A backup of a running server becomes a cluster of its own, with other epochs.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	p, url, api := serveChild(t, "--data", dir)
	ann := connectTo(t, url, "ann", "d1")
	ann.command(`"status":{"state":"dnd","text":"kept"}`)
	ids := storeFor(t, api, "carl", 5)
	epoch := epochOf(t, url, "carl")

	file := filepath.Join(t.TempDir(), "b")
	if out, err := command("backup", file, "--api", api, "--api-key", devSecret); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := command("backup", file, "--api", api, "--api-key", devSecret); exitCode(err) != 2 {
		t.Errorf("a file that exists: %v", err)
	}
	if _, err := command("backup", file+"2", "--api", api, "--api-key", "wrong"); exitCode(err) != 1 {
		t.Errorf("a wrong key: %v", err)
	}
	p.signal(9)
	<-p.ended
	if out, err := command("backup", file+"3", "--data", dir); err != nil {
		t.Fatalf("offline: %v: %s", err, out)
	}

	for _, from := range []string{file, file + "3"} {
		restored := filepath.Join(t.TempDir(), "new")
		if out, err := command("restore", from, "--data", restored); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := command("restore", from, "--data", restored); exitCode(err) != 1 || !strings.Contains(err.Error(), "STORE_NOT_EMPTY") {
			t.Errorf("restore into a directory that is not empty: %v", err)
		}
		was, is := identityOf(t, dir), identityOf(t, restored)
		if was.Cluster == is.Cluster || was.Node == is.Node || was.Store == is.Store {
			t.Errorf("identity %+v of what was restored from %+v", is, was)
		}
		p, url, api := serveChild(t, "--data", restored)
		ann := connectTo(t, url, "ann", "d1")
		if self := ann.self(); !strings.Contains(self, `"kept"`) {
			t.Errorf("own view: %s", self)
		}
		expectStored(t, url, "carl", ids)
		if now := epochOf(t, url, "carl"); now == epoch {
			t.Errorf("the epoch is still %s", now)
		}
		if again := storeFor(t, api, "carl", 1); len(again) != 1 {
			t.Error("nothing can be stored")
		}
		p.signal(9)
		<-p.ended
	}
	damaged := file + "4"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, damaged, data[:len(data)-10])
	if _, err := command("restore", damaged, "--data", filepath.Join(t.TempDir(), "new")); exitCode(err) != 1 || !strings.Contains(err.Error(), "BACKUP_INVALID") {
		t.Errorf("a backup that is cut off: %v", err)
	}
}

func epochOf(t *testing.T, url, user string) string {
	t.Helper()
	d := connectTo(t, url, user, uuid.NewString(), `"outbox":{}`)
	defer d.drop()
	var epoch string
	d.await("outbox", func() bool {
		for _, l := range d.raw {
			if _, rest, ok := strings.Cut(l, `"outbox":{"epoch":"`); ok {
				epoch, _, _ = strings.Cut(rest, `"`)
			}
		}
		return epoch != ""
	})
	return epoch
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	servedData(t, dir, func(api string) { storeFor(t, api, "carl", 5) })
	out, err := command("inspect", "--data", dir, "--user", "carl")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cluster ", "n1", "meta", "shard 63", "outbox entry", "dedupe", `{"n":4}`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "unreadable") || strings.Contains(out, "unknown") {
		t.Errorf("rows that cannot be read:\n%s", out)
	}
	out, err = command("inspect", "--data", dir, "--user", "carl", "--json")
	if err != nil || !strings.Contains(out, `"kind":"outbox entry","rows":5`) {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := command("inspect", "--data", t.TempDir()); exitCode(err) != 1 || !strings.Contains(err.Error(), "STORE_NOT_BORN") {
		t.Errorf("an empty directory: %v", err)
	}
}

// call asks the HTTP API and wants 200.
func call(t *testing.T, api, path, body string) string {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+devSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", path, resp.Status, text, err)
	}
	return string(text)
}

// explained is what explain says of the users of TestRestartKeepsWhatUsersOwn.
func explained(t *testing.T, api string) map[string]string {
	docs := map[string]string{}
	for _, user := range []string{"ann", "bob", "eve"} {
		docs[user] = call(t, api, "/v1/explain/"+user, "")
	}
	return docs
}

// member is the value of a member of a JSON document, as text.
func member(doc, name string) string {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(doc), &members) != nil {
		return doc
	}
	return string(members[name])
}
