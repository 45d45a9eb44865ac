package browser

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// keys presses keys as a keyboard does: a key that the page takes types nothing.
func (x *tab) keys(text string, modifiers ...kb.Modifier) {
	x.Helper()
	x.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, r := range text {
			all := kb.Encode(r)
			down, up := *all[0], *all[len(all)-1]
			if len(all) == 3 {
				down.Text, down.UnmodifiedText = all[1].Text, all[1].UnmodifiedText
			}
			for _, m := range modifiers {
				down.Modifiers |= int64(m)
				up.Modifiers |= int64(m)
			}
			for _, p := range []input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, p); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// focus is what has the focus: its id, or its text.
func (x *tab) focus() string {
	x.Helper()
	return get[string](x, `(document.activeElement.id || document.activeElement.textContent.trim())`)
}

// wantFocus fails the test unless an element has the focus, and shows it.
func (x *tab) wantFocus(id string) {
	x.Helper()
	x.wait(fmt.Sprintf("document.activeElement?.id == %s", quote(id)))
}
