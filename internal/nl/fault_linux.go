package nl

// Fault lets a test distort what the connection sends: each request goes through f
// on its way out, and what f returns is sent in its place. The kernel refuses a
// request of a type that does not exist, or one that is cut short, and never sees
// the one that was meant. With nil all are sent unchanged.
func (c *Conn) Fault(f func(Request) Request) {
	select {
	case <-c.turn:
		c.fault = f
		c.turn <- struct{}{}
	case <-c.done:
	}
}

// append is appendMessage behind the fault, if there is one, and the log.
func (c *Conn) append(b []byte, r *Request, flags uint16, seq uint32) []byte {
	if c.fault != nil {
		bad := c.fault(*r)
		r = &bad
	}
	if c.log != nil {
		c.log(c.family, true, Message{Type: r.Type, Flags: r.Flags | flags, Seq: seq, Body: r.Body})
	}
	return appendMessage(b, r, flags, seq)
}
