package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is the browser of all tests. It starts with the first tab.
var chromium shared

type shared struct {
	once   sync.Once
	ctx    context.Context
	cancel []context.CancelFunc
	err    error
}

func (s *shared) start() (context.Context, error) {
	s.once.Do(func() {
		path, err := browserPath()
		if err != nil {
			s.err = err
			return
		}
		options := append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.UserDataDir(filepath.Join(os.Getenv(insideEnv), "profile")),
			chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1440, 900),
			chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
			chromedp.Flag("hide-scrollbars", false),
		)
		ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
		s.cancel = append(s.cancel, cancel)
		s.ctx, cancel = chromedp.NewContext(ctx)
		s.cancel = append(s.cancel, cancel)
		s.err = chromedp.Do(s.ctx)
	})
	return s.ctx, s.err
}

func (s *shared) stop() {
	for i := range s.cancel {
		s.cancel[len(s.cancel)-1-i]()
	}
}

// A tab is a page of the browser. It fails its test if the page complains, or asks another host.
type tab struct {
	testing.TB
	ctx context.Context

	mu      sync.Mutex
	lost    bool // the program is not there: the browser complains of that
	trouble []string
	asked   []string // URLs
}

// open opens the page of the program, with the features of CSS media queries: "prefers-color-scheme",
// "dark".
func open(t testing.TB, p *program, media ...string) *tab {
	t.Helper()
	parent, err := chromium.start()
	if err != nil {
		t.Fatal(err)
	}
	x := &tab{TB: t}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	x.ctx = ctx
	t.Cleanup(cancel)
	x.do(chromedp.EmulateViewport(1440, 900))
	if err := chromedp.Listen(ctx, x.hear); err != nil {
		t.Fatal(err)
	}
	x.media(media...)
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: witness}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.check(p) })
	x.do(chromedp.Navigate(p.base + "/"))
	x.wait(`document.querySelector("#map > svg") && document.getElementById("state").dataset.state == "live"`)
	return x
}

// witness notes when the wires of the picture come: shown[id] are the milliseconds since 1970 when one was
// in the document, and when the frame after that was drawn. The number of a link is not used again, other
// than that of a namespace. opened is when the first picture was drawn, since the page was asked for.
const witness = `
	const shown = {}, times = () => performance.timeOrigin + performance.now();
	let opened = 0;
	new MutationObserver(records => {
		const now = times(), fresh = [];
		for (const r of records) for (const e of r.addedNodes) {
			if (e.classList?.contains("wire")) fresh.push(shown[e.id] = [now, 0]);
			if (e.classList?.contains("ns") && !opened) requestAnimationFrame(() => opened ||= performance.now());
		}
		if (fresh.length) requestAnimationFrame(() => fresh.forEach(f => f[1] = times()));
	}).observe(document, {childList: true, subtree: true});`

// media sets features of CSS media queries.
func (x *tab) media(media ...string) {
	x.Helper()
	params := emulation.SetEmulatedMediaParams{}
	for i := 0; i+1 < len(media); i += 2 {
		params.Features = append(params.Features, &emulation.MediaFeature{Name: media[i], Value: media[i+1]})
	}
	if _, err := chromedp.Call(x.ctx, emulation.SetEmulatedMedia, params); err != nil {
		x.Fatal(err)
	}
}

// hear keeps what the page complains of, and what it asks for.
func (x *tab) hear(event any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		x.asked = append(x.asked, e.Request.URL)
	case *runtime.EventExceptionThrown:
		x.trouble = append(x.trouble, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		x.trouble = append(x.trouble, fmt.Sprintf("console.%s %+v", e.Type, e.Args))
	case *cdplog.EventEntryAdded:
		// Chromium ends its connections when the host has another address: with a box comes one.
		changed := strings.Contains(e.Entry.Text, "net::ERR_NETWORK_CHANGED")
		if !(x.lost || changed) || e.Entry.Source != cdplog.EntrySourceNetwork {
			x.trouble = append(x.trouble, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	}
}

// check fails the test if the page has complained, or asked another host than the program.
func (x *tab) check(p *program) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range x.trouble {
		x.Errorf("the page complains: %s", t)
	}
	if len(x.asked) == 0 {
		x.Error("no request of the page was seen")
	}
	for _, url := range x.asked {
		if !strings.HasPrefix(url, p.base+"/") && !strings.HasPrefix(url, "data:") {
			x.Errorf("the page asks %s", url)
		}
	}
}

// losing says that the program ends, and what the browser says of that is no complaint.
func (x *tab) losing() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lost = true
}

func (x *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	x.Helper()
	if err := chromedp.Do(x.ctx, actions...); err != nil {
		x.Fatal(err)
	}
}

// get returns the value of an expression.
func get[T any](x *tab, expression string) T {
	x.Helper()
	v, err := chromedp.Run(x.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		x.Fatalf("%s: %v", expression, err)
	}
	return v
}

// wait waits until an expression is true.
func (x *tab) wait(expression string) {
	x.Helper()
	if _, err := chromedp.Run(x.ctx, chromedp.Poll[chromedp.Void](expression)); err != nil {
		x.screenshot("failed")
		x.Fatalf("%s: %v\nthe page is %s", expression, err, get[string](x, `document.body.innerText`))
	}
}

// click clicks at an element.
func (x *tab) click(selector string) {
	x.Helper()
	x.do(chromedp.Click(chromedp.CSS(selector)))
}

// size changes the size of the window.
func (x *tab) size(width, height int64) {
	x.Helper()
	x.do(chromedp.EmulateViewport(width, height))
}

// screenshot keeps a picture of the page where that is asked for.
func (x *tab) screenshot(name string) {
	x.Helper()
	dir := os.Getenv(screenshotsEnv)
	if dir == "" {
		return
	}
	b, err := chromedp.Run(x.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		name = strings.ReplaceAll(x.Name(), "/", "-") + "-" + name + ".png"
		err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
	}
	if err != nil {
		x.Error(err)
	}
}

// quote writes a text for JavaScript.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string does not fail
	return string(b)
}

// in is the element of a part of the picture.
func in(key string) string { return "document.getElementById(" + quote(key) + ")" }
