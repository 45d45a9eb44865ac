package agent

import "time"

// rarely is how often a trouble that lasts and changes its words is logged.
const rarely = 10 * time.Second

// trouble logs an error when it begins, and again when it has become another, but not at each try.
type trouble struct {
	log  func(error)
	said string
	last time.Time
}

// is takes in how it went: nil is well. It reports whether a trouble has ended that was logged.
func (t *trouble) is(err error) (ended bool) {
	if err == nil {
		ended = t.said != ""
		t.said = ""
		return ended
	}
	if text := err.Error(); t.said == "" || text != t.said && time.Since(t.last) > rarely {
		t.said, t.last = text, time.Now()
		t.log(err)
	}
	return false
}
