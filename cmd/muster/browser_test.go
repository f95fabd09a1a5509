package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	chromelog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// The demo page in a real browser against a real server. What one tab does is
// asserted by what another one shows.

// soon is the time that a page gets to show what it was told; machines under test are slow.
const soon = 15 * time.Second

func TestBrowser(t *testing.T) {
	chrome := chromium(t)
	b := &browser{root: startBrowser(t, chrome), server: &demoServer{t: t}}
	b.server.start()

	// Each story has users of its own, so most of them can go on at the same time.
	t.Run("together", func(t *testing.T) {
		for name, story := range map[string]func(*testing.T){
			"two people see each other":                    b.testTwoPeople,
			"text of others is shown as text":              b.testEscaping,
			"a second tab keeps its user online":           b.testSecondTab,
			"a reload is seen by nobody":                   b.testReload,
			"a duplicated tab is a device of its own":      b.testDuplicatedTab,
			"a killed tab is offline after its grace":      b.testKilledTab,
			"signing out is seen at once":                  b.testSignOut,
			"a phone shows all without sideways scrolling": b.testPhone,
			"keyboard and screen reader":                   b.testAccessible,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				story(t)
			})
		}
	})
	t.Run("pages reconnect by themselves after a restart", b.testRestart)
}

func (b *browser) testTwoPeople(t *testing.T) {
	alice := b.open(t, "/?as=alice&watch=bob")
	alice.eventually("connected", shown("#connection[data-state=connected]"))
	alice.eventually("bob is not here yet", person("bob", "offline"))
	bob := b.open(t, "/")
	bob.click(`#choices [data-name="bob"]`)
	for _, both := range []struct {
		tab   *tab
		other string
	}{{alice, "bob"}, {bob, "alice"}} {
		both.tab.eventually("sees the other online", person(both.other, "online"))
		both.tab.eventually("sees the other's device", shown(`.person[data-user="%s"] .device[data-class="web"]`, both.other))
		both.tab.eventually("sees itself on this page", shown(`#occupants [data-user="alice"]`))
		both.tab.eventually("sees the other on this page", shown(`#occupants [data-user="bob"]`))
	}
	alice.eventually("latency", `/^[0-9.]+ ms$/.test(document.querySelector("#latency").textContent)`)

	bob.click(`#states input[value="dnd"]`)
	alice.eventually("bob is busy", person("bob", "dnd"))
	bob.keys("#status-text", "in a call\r")
	alice.eventually("bob's status text", text(`.person[data-user="bob"] .text`, "“in a call”"))
	bob.click(`#states input[value="online"]`)
	alice.eventually("bob is online again", person("bob", "online"))

	bob.keys(`.person[data-user="alice"] .type-to`, "hi")
	alice.eventually("bob is typing", shown(`.person[data-user="bob"] .typing`))
	bob.keys(`.person[data-user="alice"] .type-to`, "\r")
	alice.eventually("bob stopped typing", not(shown(`.person[data-user="bob"] .typing`)))

	bob.click(`#states input[value="invisible"]`)
	alice.eventually("bob seems offline", person("bob", "offline"))
	alice.must("no device of bob is left", `!document.querySelector('.person[data-user="bob"] .device')`)
	alice.eventually("bob is not on this page", not(shown(`#occupants [data-user="bob"]`)))
	bob.eventually("bob knows that he is hidden", shown("#hidden-banner"))
	bob.eventually("bob still sees alice", person("alice", "online"))
	bob.click("#unhide")
	alice.eventually("bob is back", person("bob", "online"))
	alice.eventually("and on this page", shown(`#occupants [data-user="bob"]`))
	bob.eventually("the banner is gone", not(shown("#hidden-banner")))
}

func (b *browser) testEscaping(t *testing.T) {
	const nasty = `<img src=x onerror="document.title='owned'">`
	alice := b.open(t, "/?as=anton&watch=mallory")
	mallory := b.open(t, "/?as=mallory&watch=anton")
	mallory.eventually("connected", shown("#connection[data-state=connected]"))
	mallory.click(`#states input[value="away"]`)
	mallory.keys("#status-text", nasty+"\r")
	quoted, _ := json.Marshal("“" + nasty + "”")
	alice.eventually("the text as it was typed", fmt.Sprintf(`document.querySelector('.person[data-user="mallory"] .text').textContent === %s`, quoted))
	alice.eventually("no element came of it", `!document.querySelector("#app img") && document.title === "Anton · Muster"`)
}

func (b *browser) testSecondTab(t *testing.T) {
	watcher := b.open(t, "/?as=berta&watch=ben,witness")
	first := b.open(t, "/?as=ben&watch=berta")
	second := first.sibling("/?as=ben&watch=berta")
	witness := b.open(t, "/?as=witness&watch=berta")
	for _, who := range []string{"ben", "witness"} {
		watcher.eventually(who+" is here", person(who, "online"))
	}
	second.eventually("connected", shown("#connection[data-state=connected]"))

	first.close()
	witness.close() // later, so when its grace is over that of ben's first tab is over too
	watcher.eventually("the witness is offline", person("witness", "offline"))
	watcher.must("ben is online through his second tab", person("ben", "online"))
	second.close()
	watcher.eventually("ben is offline with his last tab", person("ben", "offline"))
	if lines := strings.Split(watcher.lines("Ben"), "; "); len(lines) != 2 || !strings.HasPrefix(lines[0], "Ben left") || lines[1] != "Ben is online now" {
		t.Fatalf("others saw %q of two tabs, want one coming and one going", lines)
	}
}

func (b *browser) testReload(t *testing.T) {
	watcher := b.open(t, "/?as=clara&watch=carl")
	carl := b.open(t, "/?as=carl&watch=clara")
	watcher.eventually("carl is here", person("carl", "online"))
	carl.eventually("connected", shown("#connection[data-state=connected]"))
	before, device, session := watcher.lines("Carl"), carl.stored("device"), carl.stored("session")
	for _, way := range [][]chromedp.Action[chromedp.Void]{
		{chromedp.Reload()},
		{chromedp.Navigate(b.server.url("/logo.svg")), chromedp.Evaluate[chromedp.Void](`void setTimeout(() => history.back())`)}, // a browser may have kept the page and its script
	} {
		carl.do(way...)
		carl.eventually("connected again", shown("#connection[data-state=connected]"))
		if device != carl.stored("device") || session != carl.stored("session") {
			t.Errorf("back on the page device and session are %s %s, were %s %s", carl.stored("device"), carl.stored("session"), device, session)
		}
	}
	// What he types arrives after all that his coming back caused. (chromedp cannot send keys to a page that was kept.)
	carl.do(chromedp.Evaluate[chromedp.Void](`{ const field = document.querySelector('.person[data-user="clara"] .type-to'); field.value = "x"; field.dispatchEvent(new Event("input")); }`))
	watcher.eventually("carl is typing", shown(`.person[data-user="carl"] .typing`))
	if after := watcher.lines("Carl"); after != before {
		t.Fatalf("a reload was seen by others: log was %q, is %q", before, after)
	}
}

func (b *browser) testDuplicatedTab(t *testing.T) {
	dan := b.open(t, "/?as=dan&watch=dora")
	dan.eventually("connected", shown("#connection[data-state=connected]"))
	opened := chromedp.WaitNewTarget(dan.ctx, func(i *target.Info) bool { return i.Type == "page" })
	dan.do(chromedp.Evaluate[chromedp.Void](`void window.open(location.href)`)) // a page that it opens gets a copy of its session storage
	copied := dan.attach(<-opened)
	copied.eventually("connected", shown("#connection[data-state=connected]"))
	// On a slow machine the copy may win the device; then the first tab becomes a new one when it is seen.
	if _, err := chromedp.Call(dan.ctx, page.BringToFront, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	dan.eventually("the first tab is connected as another device", fmt.Sprintf(`%s && sessionStorage["muster.dan.device"] !== %q && (sessionStorage["muster.dan.session"] || %q) !== %[3]q`,
		shown("#connection[data-state=connected]"), copied.stored("device"), copied.stored("session")))
}

func (b *browser) testKilledTab(t *testing.T) {
	watcher := b.open(t, "/?as=emma&watch=emil")
	emil := b.open(t, "/?as=emil&watch=emma")
	watcher.eventually("emil is here", person("emil", "online"))
	killed := time.Now()
	emil.crash()
	watcher.eventually("emil is offline", person("emil", "offline"))
	if took := time.Since(killed); took < 4*time.Second || took > 12*time.Second {
		t.Errorf("a killed tab was offline after %v, want its grace of 5 s, not the 15 s of silence", took)
	}
	watcher.eventually("when he was last seen", `/last seen (just now|1 min ago)/.test(document.querySelector('.person[data-user="emil"] .line').textContent)`)
}

func (b *browser) testSignOut(t *testing.T) {
	watcher := b.open(t, "/?as=frida&watch=fritz")
	fritz := b.open(t, "/?as=fritz&watch=frida")
	watcher.eventually("fritz is here", person("fritz", "online"))
	fritz.eventually("connected", shown("#connection[data-state=connected]"))
	left := time.Now()
	fritz.click("#sign-out")
	watcher.eventually("fritz is offline", person("fritz", "offline"))
	if took := time.Since(left); took > 4*time.Second {
		t.Errorf("signing out was seen after %v, want at once: less than the 5 s of a closed tab", took)
	}
	fritz.eventually("the first page", shown("#welcome"))
}

func (b *browser) testPhone(t *testing.T) {
	const width = 360
	long := strings.Repeat("a-very-long-name", 4)
	fits := fmt.Sprintf(`document.documentElement.scrollWidth <= %d && [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest(".unseen, svg"))
		.every((e) => e.getBoundingClientRect().right <= %d)`, width, width)
	phone := b.open(t, "/")
	phone.do(chromedp.EmulateViewport(width, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	phone.eventually("the first page fits", fits)
	phone.do(chromedp.Navigate(b.server.url("/?as=" + long + "&watch=hugo,ida," + long + "x")))
	other := b.open(t, "/?as=hugo&watch="+long)
	other.eventually("connected", shown("#connection[data-state=connected]"))
	other.click(`#states input[value="dnd"]`)
	other.keys("#status-text", strings.Repeat("w", 100)+"\r")
	phone.eventually("a long status text", shown(`.person[data-user="hugo"] .text`))
	other.keys(`.person .type-to`, "x")
	phone.eventually("typing", shown(`.person[data-user="hugo"] .typing`))
	phone.click(`#states input[value="invisible"]`)
	phone.eventually("the banner", shown("#hidden-banner"))
	phone.eventually("the page fits", fits)
}

func (b *browser) testAccessible(t *testing.T) {
	tab := b.open(t, "/")
	tab.namedControls(4)
	tab.do(chromedp.Focus(chromedp.CSS("#name")), chromedp.KeyEvent("Ivo\r"))
	tab.eventually("signed in by keyboard", shown("#connection[data-state=connected]"))
	tab.do(chromedp.Focus(chromedp.CSS("#add-name")), chromedp.KeyEvent("Zoë M.\r"))
	tab.eventually("a name became an id", shown(`.person[data-user="zoe-m."]`))
	tab.namedControls(12)
	tab.must("changes are announced", `document.querySelector("#log").getAttribute("role") === "log" && document.querySelector("#connection-text").getAttribute("role") === "status"`)
}

func (b *browser) testRestart(t *testing.T) {
	watcher := b.open(t, "/?as=greta&watch=georg")
	georg := b.open(t, "/?as=georg&watch=greta")
	watcher.eventually("georg is here", person("georg", "online"))
	b.server.kill()
	for _, tab := range []*tab{watcher, georg} {
		tab.eventually("says that the connection is lost", shown("#connection[data-state=waiting], #connection[data-state=connecting]"))
	}
	watcher.must("what is known is kept, marked as not confirmed", shown(`.person.stale[data-user="georg"][data-state="online"]`))
	b.server.start()
	watcher.eventually("connected by itself", shown("#connection[data-state=connected]"))
	georg.eventually("connected by itself", shown("#connection[data-state=connected]"))
	watcher.eventually("georg is here", shown(`.person:not(.stale)[data-user="georg"][data-state="online"]`))
	georg.eventually("greta is here", shown(`.person:not(.stale)[data-user="greta"][data-state="online"]`))
	georg.keys(`.person[data-user="greta"] .type-to`, "x")
	watcher.eventually("and all works as before", shown(`.person[data-user="georg"] .typing`))
}

// Conditions, as JavaScript.

func shown(selector string, args ...any) string {
	quoted, _ := json.Marshal(fmt.Sprintf(selector, args...))
	return fmt.Sprintf(`!!document.querySelector(%s)?.checkVisibility()`, quoted)
}

func person(user, state string) string {
	return shown(`.person[data-user="%s"][data-state="%s"]`, user, state)
}

func text(selector, want string) string {
	s, _ := json.Marshal(selector)
	w, _ := json.Marshal(want)
	return fmt.Sprintf(`document.querySelector(%s)?.textContent === %s`, s, w)
}

func not(condition string) string { return "!(" + condition + ")" }

// chromium is the browser to test with. Without one the test fails: it must not pass
// in silence where nobody installed it.
func chromium(t *testing.T) string {
	t.Helper()
	if os.Getenv("MUSTER_NO_BROWSER") == "1" {
		t.Skip("MUSTER_NO_BROWSER=1: no browser tests")
	}
	for _, name := range []string{"/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium found. Install it (Debian: apt-get install -y chromium), or set MUSTER_NO_BROWSER=1 to go without the browser tests.")
	return ""
}

type browser struct {
	root   context.Context
	server *demoServer
}

func startBrowser(t *testing.T, chrome string) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chrome), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("%s does not end: %v", chrome, err)
		}
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("%s does not start: %v", chrome, err)
	}
	return ctx
}

// tab is one page. It fails the test for any exception or breach of the content
// security policy in it.
type tab struct {
	t   *testing.T
	b   *browser
	ctx context.Context
}

// open opens path in a profile of its own, so nothing is shared with other tabs.
func (b *browser) open(t *testing.T, path string) *tab {
	t.Helper()
	return b.tab(t, b.root, path, chromedp.WithNewBrowserContext())
}

// sibling opens path in another tab of the same profile.
func (tb *tab) sibling(path string) *tab {
	tb.t.Helper()
	return tb.b.tab(tb.t, tb.ctx, path)
}

// attach is the tab of a page that a page opened.
func (tb *tab) attach(id target.ID) *tab {
	tb.t.Helper()
	return tb.b.tab(tb.t, tb.ctx, "", chromedp.WithTargetID(id))
}

func (b *browser) tab(t *testing.T, parent context.Context, path string, opts ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, opts...)
	tb := &tab{t: t, b: b, ctx: ctx}
	t.Cleanup(cancel)
	fault := func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("%s: exception: %s %v", path, e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
		case *chromelog.EventEntryAdded:
			if e.Entry.Source == chromelog.EntrySourceSecurity {
				t.Errorf("%s: %s", path, e.Entry.Text)
			}
		}
	}
	if err := chromedp.Listen(ctx, fault); err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	if path != "" {
		tb.do(chromedp.EmulateViewport(1120, 800), chromedp.Navigate(b.server.url(path)))
	}
	return tb
}

func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, soon)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tb.t.Fatalf("%v\n%s", err, tb.b.server.log())
	}
}

func (tb *tab) click(selector string) {
	tb.t.Helper()
	tb.do(chromedp.Click(chromedp.CSS(selector)))
}

func (tb *tab) keys(selector, keys string) {
	tb.t.Helper()
	tb.do(chromedp.SendKeys(chromedp.CSS(selector), keys))
}

// eventually waits until the JavaScript condition holds.
func (tb *tab) eventually(what, condition string) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, soon)
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		// An error is a page in the middle of a navigation, or the end of the time.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](condition)); err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			tb.t.Fatalf("%s: not within %v: %s\nthe page says:\n%s\n%s", what, soon, condition, tb.text(), tb.b.server.log())
		case <-every.C:
		}
	}
}

// must asserts what has to hold now.
func (tb *tab) must(what, condition string) {
	tb.t.Helper()
	if ok, err := chromedp.Run(tb.ctx, chromedp.Evaluate[bool](condition)); err != nil || !ok {
		tb.t.Fatalf("%s: not so: %s (%v)\nthe page says:\n%s", what, condition, err, tb.text())
	}
}

func (tb *tab) eval(expression string) string {
	ctx, cancel := context.WithTimeout(tb.ctx, soon)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		return err.Error()
	}
	return s
}

func (tb *tab) text() string { return tb.eval(`document.body.innerText`) }

// lines is what the page's log says of someone, the newest first.
func (tb *tab) lines(of string) string {
	return tb.eval(fmt.Sprintf(`[...document.querySelectorAll("#log li span")].map((e) => e.textContent).filter((s) => s.startsWith(%q)).join("; ")`, of))
}

// stored is what the client keeps in the tab: device, session.
func (tb *tab) stored(key string) string {
	tb.t.Helper()
	v := tb.eval(fmt.Sprintf(`sessionStorage.getItem("muster." + new URLSearchParams(location.search).get("as") + ".%s") || ""`, key))
	if v == "" {
		tb.t.Fatalf("no %s in the session storage", key)
	}
	return v
}

// close closes the tab as its user would.
func (tb *tab) close() {
	tb.t.Helper()
	if _, err := chromedp.Call(tb.ctx, page.Close, cdp.Empty{}); err != nil {
		tb.t.Fatal(err)
	}
}

// crash kills the process that shows the page; nothing of the page runs after it.
func (tb *tab) crash() {
	tb.t.Helper()
	ctx, cancel := context.WithCancel(tb.ctx)
	go func() {
		_, _ = chromedp.Call(ctx, page.Crash, cdp.Empty{}) // never answered
	}()
	tb.t.Cleanup(cancel)
}

// namedControls asserts that each control has a name for a screen reader, and that at least n are there.
func (tb *tab) namedControls(n int) {
	tb.t.Helper()
	tree, err := chromedp.Call(tb.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		tb.t.Fatal(err)
	}
	controls := 0
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role := strings.Trim(string(node.Role.Value), `"`)
		switch role {
		case "button", "link", "textbox", "radio", "DisclosureTriangle":
			controls++
			if node.Name == nil || strings.Trim(string(node.Name.Value), `" `) == "" {
				tb.t.Errorf("a %s has no name", role)
			}
		}
	}
	if controls < n {
		tb.t.Errorf("%d controls found, want at least %d", controls, n)
	}
}

// demoServer is `muster serve --dev` in a process of its own. It lives as long as the
// test that first starts it.
type demoServer struct {
	t       *testing.T
	process *process
	address string // once started; a restart takes it again
}

func (s *demoServer) start() {
	s.t.Helper()
	var args []string
	if s.address != "" {
		args = []string{"--listen", s.address}
	}
	var url string
	s.process, url, _ = serveChild(s.t, args...)
	s.address = strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/v1/ws")
}

// kill ends the server without a word to anybody.
func (s *demoServer) kill() {
	s.t.Helper()
	s.process.signal(syscall.SIGKILL)
	s.process.exit()
}

func (s *demoServer) url(path string) string { return "http://" + s.address + path }

func (s *demoServer) log() string {
	s.process.mu.Lock()
	defer s.process.mu.Unlock()
	return "the server says:\n" + strings.Join(s.process.lines, "\n")
}
