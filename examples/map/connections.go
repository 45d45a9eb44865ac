package main

import (
	"net"
	"sync"
)

// bound returns a listener that has no more than a number of connections at a time. Others wait in the
// kernel's queue.
func bound(l net.Listener, most int) net.Listener {
	return &boundListener{Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

type boundListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a place, and for a connection.
func (l *boundListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close ends an Accept that waits for a place, too.
func (l *boundListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundConn struct {
	net.Conn
	release func()
}

// Close gives the place back.
func (c *boundConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
