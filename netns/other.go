//go:build !linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"runtime"
	"syscall"

	"github.com/mdlayher/netlink"
)

// NS is an open handle on a network namespace, which only Linux has. Here there
// are none: whatever makes or uses one returns errors.ErrUnsupported.
type NS struct{}

func unsupported(op string) error {
	return &Error{Op: op, Err: fmt.Errorf("network namespaces need Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)}
}

// Current returns errors.ErrUnsupported.
func Current() (*NS, error) { return nil, unsupported("netns.Current") }

// New returns errors.ErrUnsupported.
func New(context.Context) (*NS, error) { return nil, unsupported("netns.New") }

// Create returns errors.ErrUnsupported.
func Create(context.Context, string) (*NS, error) { return nil, unsupported("netns.Create") }

// Open returns errors.ErrUnsupported.
func Open(context.Context, string) (*NS, error) { return nil, unsupported("netns.Open") }

// Create returns errors.ErrUnsupported.
func (Folder) Create(context.Context, string) (*NS, error) { return nil, unsupported("netns.Create") }

// Open returns errors.ErrUnsupported.
func (Folder) Open(context.Context, string) (*NS, error) { return nil, unsupported("netns.Open") }

// Pin returns errors.ErrUnsupported.
func Pin(context.Context, *NS, string) (*NS, error) { return nil, unsupported("netns.Pin") }

// Pin returns errors.ErrUnsupported.
func (Folder) Pin(context.Context, *NS, string) (*NS, error) { return nil, unsupported("netns.Pin") }

// Rename returns errors.ErrUnsupported.
func Rename(context.Context, string, string) error { return unsupported("netns.Rename") }

// Rename returns errors.ErrUnsupported.
func (Folder) Rename(context.Context, string, string) error { return unsupported("netns.Rename") }

// Delete returns errors.ErrUnsupported.
func (Folder) Delete(context.Context, string) error { return unsupported("netns.Delete") }

// NewInUserNS returns errors.ErrUnsupported.
func NewInUserNS(context.Context, UserNS) (*NS, error) { return nil, unsupported("netns.NewInUserNS") }

// List returns errors.ErrUnsupported.
func List(context.Context) ([]Named, error) { return nil, unsupported("netns.List") }

// List returns errors.ErrUnsupported.
func (Folder) List(context.Context) ([]Named, error) { return nil, unsupported("netns.List") }

// Watch yields errors.ErrUnsupported.
func Watch(ctx context.Context) iter.Seq2[Event, error] { return Folder("").Watch(ctx) }

// Watch yields errors.ErrUnsupported.
func (Folder) Watch(context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, unsupported("netns.Watch")) }
}

// All returns errors.ErrUnsupported.
func All(context.Context) ([]Info, error) { return nil, unsupported("netns.All") }

// Holders returns errors.ErrUnsupported.
func (*NS) Holders(context.Context) ([]Holder, error) { return nil, unsupported("netns.Holders") }

// OpenPath returns errors.ErrUnsupported.
func OpenPath(context.Context, string) (*NS, error) { return nil, unsupported("netns.OpenPath") }

// OpenPid returns errors.ErrUnsupported.
func OpenPid(context.Context, int) (*NS, error) { return nil, unsupported("netns.OpenPid") }

// OpenTid returns errors.ErrUnsupported.
func OpenTid(context.Context, int) (*NS, error) { return nil, unsupported("netns.OpenTid") }

// OpenPidfd returns errors.ErrUnsupported.
func OpenPidfd(context.Context, int) (*NS, error) { return nil, unsupported("netns.OpenPidfd") }

// OpenContainer returns errors.ErrUnsupported.
func OpenContainer(context.Context, string) (*NS, error) {
	return nil, unsupported("netns.OpenContainer")
}

// OpenFd returns errors.ErrUnsupported.
func OpenFd(int) (*NS, error) { return nil, unsupported("netns.OpenFd") }

// Adopt returns errors.ErrUnsupported.
func Adopt(int) (*NS, error) { return nil, unsupported("netns.Adopt") }

// OpenSocket returns errors.ErrUnsupported.
func OpenSocket(syscall.Conn) (*NS, error) { return nil, unsupported("netns.OpenSocket") }

// Delete returns errors.ErrUnsupported.
func Delete(context.Context, string) error { return unsupported("netns.Delete") }

// Do returns errors.ErrUnsupported.
func Do[T any](context.Context, *NS, func(context.Context) (T, error)) (v T, err error) {
	return v, unsupported("netns.Do")
}

func (*NS) inside(context.Context, func()) error { return unsupported("netns") }

// Name returns "".
func (*NS) Name() string { return "" }

// Path returns "".
func (*NS) Path() string { return "" }

// ID returns the zero ID.
func (*NS) ID() ID { return ID{} }

// String says that there is no namespace.
func (*NS) String() string { return "(none)" }

// Equal returns false.
func (*NS) Equal(*NS) bool { return false }

// WithFd returns errors.ErrUnsupported.
func (*NS) WithFd(func(fd int) error) error { return unsupported("netns.WithFd") }

// Close does nothing.
func (*NS) Close() error { return nil }

// Delete returns errors.ErrUnsupported.
func (*NS) Delete(context.Context) error { return unsupported("netns.Delete") }

// Sysctl returns errors.ErrUnsupported.
func (*NS) Sysctl(context.Context, string) (string, error) { return "", unsupported("netns.Sysctl") }

// SetSysctl returns errors.ErrUnsupported.
func (*NS) SetSysctl(context.Context, string, string) error { return unsupported("netns.SetSysctl") }

// Dial returns errors.ErrUnsupported.
func (*NS) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, unsupported("netns.Dial")
}

// DialContext returns errors.ErrUnsupported.
func (*NS) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, unsupported("netns.Dial")
}

// DialWith returns errors.ErrUnsupported.
func (*NS) DialWith(context.Context, net.Dialer, string, string) (net.Conn, error) {
	return nil, unsupported("netns.Dial")
}

// ListenWith returns errors.ErrUnsupported.
func (*NS) ListenWith(context.Context, net.ListenConfig, string, string) (net.Listener, error) {
	return nil, unsupported("netns.Listen")
}

// ListenPacketWith returns errors.ErrUnsupported.
func (*NS) ListenPacketWith(context.Context, net.ListenConfig, string, string) (net.PacketConn, error) {
	return nil, unsupported("netns.ListenPacket")
}

// Socket returns errors.ErrUnsupported.
func (*NS) Socket(context.Context, int, int, int) (*os.File, error) {
	return nil, unsupported("netns.Socket")
}

// Cookie returns errors.ErrUnsupported.
func (*NS) Cookie(context.Context) (uint64, error) { return 0, unsupported("netns.Cookie") }

// Owner returns errors.ErrUnsupported.
func (*NS) Owner() (Owner, error) { return Owner{}, unsupported("netns.Owner") }

// OpenOwner returns errors.ErrUnsupported.
func (*NS) OpenOwner() (*os.File, error) { return nil, unsupported("netns.OpenOwner") }

// NSID returns errors.ErrUnsupported.
func (*NS) NSID(context.Context, *NS) (int, error) { return 0, unsupported("netns.NSID") }

// AssignNSID returns errors.ErrUnsupported.
func (*NS) AssignNSID(context.Context, *NS, int) error { return unsupported("netns.AssignNSID") }

// EnsureNSID returns errors.ErrUnsupported.
func (*NS) EnsureNSID(context.Context, *NS) (int, error) { return 0, unsupported("netns.EnsureNSID") }

// NSIDs returns errors.ErrUnsupported.
func (*NS) NSIDs(context.Context) ([]int, error) { return nil, unsupported("netns.NSIDs") }

// OpenNSID returns errors.ErrUnsupported.
func (*NS) OpenNSID(context.Context, int) (*NS, error) { return nil, unsupported("netns.OpenNSID") }

// Listen returns errors.ErrUnsupported.
func (*NS) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, unsupported("netns.Listen")
}

// ListenPacket returns errors.ErrUnsupported.
func (*NS) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return nil, unsupported("netns.ListenPacket")
}

// DialNetlink returns errors.ErrUnsupported.
func (*NS) DialNetlink(context.Context, int, *netlink.Config) (*netlink.Conn, error) {
	return nil, unsupported("netns.DialNetlink")
}
