package netns

import "sync"

// held are the handles that are open. The runtime closes the descriptor of a file that
// nothing refers to any more, and with the last descriptor a namespace ends. A program
// that has made a namespace and goes on with the links in it would lose them at a time
// of the garbage collector's choice. So a handle is referred to until it is closed.
var held = handles{open: make(map[*NS]struct{})}

type handles struct {
	sync.Mutex
	open map[*NS]struct{}
}

func (h *handles) add(ns *NS) {
	h.Lock()
	defer h.Unlock()
	h.open[ns] = struct{}{}
}

func (h *handles) remove(ns *NS) {
	h.Lock()
	defer h.Unlock()
	delete(h.open, ns)
}
