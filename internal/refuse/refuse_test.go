package refuse

import (
	"errors"
	"io"
	"os"
	"testing"
)

func TestAs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		text string
		is   []error
	}{
		{As(os.ErrNotExist, "port %d is not published", 80), "port 80 is not published", []error{os.ErrNotExist}},
		{As(errors.ErrUnsupported, "no module: %w", io.EOF), "no module: EOF", []error{errors.ErrUnsupported, io.EOF}},
		{Input("100%% of %q", "x"), `100% of "x"`, []error{os.ErrInvalid}},
	} {
		if c.err.Error() != c.text {
			t.Errorf("the text is %q, not %q", c.err, c.text)
		}
		for _, is := range c.is {
			if !errors.Is(c.err, is) {
				t.Errorf("%q is not %q", c.err, is)
			}
		}
		if errors.Is(c.err, os.ErrExist) {
			t.Errorf("%q is %q", c.err, os.ErrExist)
		}
	}
	if e := Input("x"); !errors.Is(e, e) {
		t.Error("an error is not itself")
	}
}
