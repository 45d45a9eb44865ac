package nat

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// Sockets that were opened ahead keep ports of the NAT's namespace, and are closed
// with it.
func TestSocketsAreReadyForTheNextPort(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	v4 := spot{proto: TCP, host: ap("0.0.0.0:1")}.kind()
	for i := range 2*ahead - 2 {
		host := fmt.Sprintf("0.0.0.0:%d", 1000+i)
		if err := gw.Publish(t.Context(), tcp(host, "10.0.0.2:80", "web")); err != nil {
			t.Fatal(err)
		}
		want := 0 // who publishes one port has no use for more
		if i > 0 {
			want = ahead - 1 - (i-1)%ahead
		}
		if got := len(gw.stock.free[v4]); got != want {
			t.Errorf("after %d ports, %d sockets are ready, want %d", i+1, got, want)
		}
		expectTaken(t, ns, fmt.Sprintf("127.0.0.1:%d", 1000+i), true, false)
	}
	if _, err := gw.PublishFree(t.Context(), tcp("0.0.0.0:0", "10.0.0.2:81", "free"), udp("[::]:0", "[fd00::2]:81", "free")); err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(t.Context(), udp("0.0.0.0:1000", "10.0.0.2:80", "dns")); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:1000", true, true)
	inode := func(s socket) (ino uint64) {
		var st unix.Stat_t
		if unix.Fstat(int(s), &st) == nil {
			ino = st.Ino
		}
		return ino
	}
	spare := make(map[socket]uint64)
	for _, s := range gw.stock.free[v4] {
		spare[s] = inode(s)
	}
	gw.Close()
	if len(spare) == 0 {
		t.Error("no socket is ready")
	}
	for s, was := range spare { // another test may have the number since
		if is := inode(s); is == was {
			t.Errorf("descriptor %d is still open", s)
		}
	}
}

func TestTheStockIsNoBiggerThanItShouldBe(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var st stock
	defer st.close()
	spots := make([]spot, 3*ahead)
	for i := range spots {
		spots[i] = spot{proto: TCP, host: ap("0.0.0.0:1")}
	}
	all, err := st.take(t.Context(), ns, spots)
	if err != nil {
		t.Fatal(err)
	}
	if k := spots[0].kind(); len(st.free[k]) != 0 {
		t.Errorf("%d sockets beside the %d that were asked for", len(st.free[k]), len(all))
	}
	st.put(spots, all)
	if k := spots[0].kind(); len(st.free[k]) != ahead {
		t.Errorf("%d sockets were kept, want %d", len(st.free[k]), ahead)
	}
}
