package nft

import (
	"context"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	attrFlowtableTable = 1 // NFTA_FLOWTABLE_TABLE
	attrFlowtableName  = 2
	attrFlowtableHook  = 3
	attrFlowtableFlags = 7

	attrFlowtableHookNum      = 1 // NFTA_FLOWTABLE_HOOK_NUM
	attrFlowtableHookPriority = 2
	attrFlowtableHookDevs     = 3

	attrDeviceName = 1 // NFTA_DEVICE_NAME
	attrFlowName   = 1 // NFTA_FLOW_TABLE_NAME

	netdevIngress    = 0   // NF_NETDEV_INGRESS
	flowtableCounter = 0x2 // NFT_FLOWTABLE_COUNTER
)

// Flowtable is a flowtable of a table: its flows are forwarded from the ingress hooks of its devices.
type Flowtable struct {
	Name     string
	Priority int32
	Counter  bool // packets of its flows count in connection tracking
	Devices  []string
}

// What is what an [Error] says about the flowtable.
func (f Flowtable) What() string { return "flowtable " + f.Name }

// AddFlowtable adds a flowtable. It must not exist, and its devices must.
func (b *Batch) AddFlowtable(f Flowtable) {
	m := b.flowtable(f.Name)
	m, at := nl.Begin(m, attrFlowtableHook)
	m = nl.AppendBE32(m, attrFlowtableHookNum, netdevIngress)
	m = nl.AppendBE32(m, attrFlowtableHookPriority, uint32(f.Priority))
	m = appendDevices(m, f.Devices)
	nl.End(m, at)
	if f.Counter {
		m = nl.AppendBE32(m, attrFlowtableFlags, flowtableCounter)
	}
	b.add(unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, f.What())
}

// AddDevices adds devices to a flowtable that has none of them.
func (b *Batch) AddDevices(f Flowtable) {
	if len(f.Devices) == 0 {
		return
	}
	m, at := nl.Begin(b.flowtable(f.Name), attrFlowtableHook)
	m = appendDevices(m, f.Devices)
	nl.End(m, at)
	b.add(unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE, m, f.What())
}

func (b *Batch) flowtable(name string) []byte {
	m := nl.AppendString(b.header(), attrFlowtableTable, b.table)
	return nl.AppendString(m, attrFlowtableName, name)
}

func appendDevices(m []byte, devices []string) []byte {
	if len(devices) == 0 {
		return m
	}
	m, at := nl.Begin(m, attrFlowtableHookDevs)
	for _, d := range devices {
		m = nl.AppendString(m, attrDeviceName, d)
	}
	nl.End(m, at)
	return m
}

// FlowAdd is the statement of a rule that adds a packet's flow to a flowtable. A flow that cannot be
// added ends the rule. The expr package leaves out the NUL that the kernel returns.
func FlowAdd(flowtable string) Raw {
	return Raw{Name: "flow_offload", Data: nl.AppendString(nil, attrFlowName, flowtable)}
}

// Flowtable reads a flowtable. One that is not there is os.ErrNotExist.
func (c Conn) Flowtable(ctx context.Context, table, name string) (f Flowtable, err error) {
	body := nl.AppendString(header(c.family), attrFlowtableTable, table)
	body = nl.AppendString(body, attrFlowtableName, name)
	err = c.nl.Call(ctx, nl.Request{Type: msgType(unix.NFT_MSG_GETFLOWTABLE), Body: body}, func(m nl.Message) (err error) {
		f, err = decodeFlowtable(m.Body)
		return err
	})
	return f, err
}

// decodeFlowtable reads the body of a NEWFLOWTABLE message.
func decodeFlowtable(body []byte) (f Flowtable, err error) {
	if len(body) < 4 {
		return f, errShort
	}
	w := nl.Walk(body[4:])
	for w.Next() {
		switch w.Type() {
		case attrFlowtableName:
			f.Name = w.String()
		case attrFlowtableFlags:
			f.Counter = w.BE32()&flowtableCounter != 0
		case attrFlowtableHook:
			if err := f.decodeHook(w.Nested()); err != nil {
				return f, err
			}
		}
	}
	return f, w.Err()
}

func (f *Flowtable) decodeHook(w nl.Walker) error {
	for w.Next() {
		switch w.Type() {
		case attrFlowtableHookPriority:
			f.Priority = int32(w.BE32())
		case attrFlowtableHookDevs:
			d := w.Nested()
			for d.Next() {
				if d.Type() == attrDeviceName {
					f.Devices = append(f.Devices, d.String())
				}
			}
			if err := d.Err(); err != nil {
				return err
			}
		}
	}
	return w.Err()
}
