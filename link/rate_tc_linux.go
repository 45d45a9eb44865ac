package link

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Constants of linux/pkt_sched.h, linux/pkt_cls.h and linux/tc_act that
// golang.org/x/sys/unix lacks.
const (
	sizeofTcMsg = 20

	tcRoot    = 0xffffffff // TC_H_ROOT
	tcIngress = 0xfffffff1 // TC_H_INGRESS
	ingressID = 0xffff0000 // the handle of every ingress qdisc

	tcaKind, tcaOptions = 1, 2

	tbfParms, tbfRate64, tbfBurst = 1, 4, 6 // TCA_TBF_*
	linkLayerEthernet             = 1

	u32Sel, u32Act, u32Terminal = 5, 7, 1 // TCA_U32_*
	actKind, actOptions         = 1, 2
	mirredParms, mirredRedirect = 2, 1
	policeTBF, policeRateTable  = 1, 2
	policeRate64                = 8
	tcActShot, tcActStolen      = 2, 4

	rateHandle = 0xb0e0 << 16 // our root qdiscs: major number b0e0
	ratePrio   = 0xb0e0       // our filters
)

// tcMsg appends a struct tcmsg.
func tcMsg(index int, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 128) // family and padding
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return binary.NativeEndian.AppendUint32(b, info)
}

// newTBF builds the message that makes a token bucket (tc-tbf(8)) the link's root
// qdisc, or changes it. It has no rate table: a qdisc that gets its link layer
// needs none.
func newTBF(index int, m Limit) nl.Request {
	b := tcMsg(index, rateHandle, tcRoot, 0)
	b = nl.AppendString(b, tcaKind, "tbf")
	b, at := nl.Begin(b, tcaOptions)
	bytes := uint64(m.Rate) / 8
	parms := appendRateSpec(make([]byte, 0, 36), bytes)
	parms = append(parms, make([]byte, 12)...) // no peak rate
	parms = binary.NativeEndian.AppendUint32(parms, m.queue())
	parms = binary.NativeEndian.AppendUint32(parms, burstTicks(m))
	parms = binary.NativeEndian.AppendUint32(parms, 0)
	b = nl.AppendAttr(b, tbfParms, parms)
	b = nl.AppendU32(b, tbfBurst, uint32(m.Burst))
	if bytes > math.MaxUint32 {
		b = nl.AppendU64(b, tbfRate64, bytes)
	}
	nl.End(b, at)
	return nl.Request{Type: unix.RTM_NEWQDISC, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: b}
}

// appendRateSpec appends a struct tc_ratespec; a rate that needs more than 32
// bits is all ones there.
func appendRateSpec(b []byte, bytes uint64) []byte {
	b = append(b, 3, linkLayerEthernet, 0, 0, 0xff, 0xff, 0, 0) // 8-byte cells, aligned to -1
	return binary.NativeEndian.AppendUint32(b, uint32(min(bytes, math.MaxUint32)))
}

// tick is the unit of time of the packet schedulers.
const tick = 64 * time.Nanosecond

// burstTicks is how long the burst takes.
func burstTicks(m Limit) uint32 {
	return uint32(min(float64(m.Burst)/(float64(m.Rate)/8)*float64(time.Second/tick), math.MaxUint32))
}

func delQdisc(index int, parent uint32) nl.Request {
	handle := uint32(rateHandle)
	if parent == tcIngress {
		handle = ingressID
	}
	return nl.Request{Type: unix.RTM_DELQDISC, Body: tcMsg(index, handle, parent, 0)}
}

// getQdisc asks for one qdisc. Without NLM_F_ECHO the kernel sends the answer to
// the listeners of the group and not to the caller.
func getQdisc(index int, parent uint32) nl.Request {
	return nl.Request{Type: unix.RTM_GETQDISC, Flags: unix.NLM_F_ECHO, Body: tcMsg(index, 0, parent, 0)}
}

func newIngress(index int) nl.Request {
	b := nl.AppendString(tcMsg(index, ingressID, tcIngress, 0), tcaKind, "ingress")
	return nl.Request{Type: unix.RTM_NEWQDISC, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}
}

func getFilters(index int) nl.Request {
	return nl.Request{Type: unix.RTM_GETTFILTER, Body: tcMsg(index, 0, ingressID, 0)}
}

// newFilter builds the message of a filter on ingress with one action. It is a u32
// filter (tc-u32(8)) with a key that matches everything; some kernels lack the
// simpler matchall.
func newFilter(index int, action string, options func([]byte) []byte) nl.Request {
	info := uint32(ratePrio)<<16 | uint32(htons(unix.ETH_P_ALL))
	b := tcMsg(index, 0, ingressID, info)
	b = nl.AppendString(b, tcaKind, "u32")
	b, opt := nl.Begin(b, tcaOptions)
	b, acts := nl.Begin(b, u32Act)
	b, act := nl.Begin(b, 1) // the first action
	b = nl.AppendString(b, actKind, action)
	b, at := nl.Begin(b, actOptions)
	b = options(b)
	nl.End(b, at)
	nl.End(b, act)
	nl.End(b, acts)
	sel := make([]byte, 32) // struct tc_u32_sel and one tc_u32_key, mask 0
	sel[0], sel[2] = u32Terminal, 1
	b = nl.AppendAttr(b, u32Sel, sel)
	nl.End(b, opt)
	return nl.Request{Type: unix.RTM_NEWTFILTER, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}
}

// redirect sends what comes in out of another link (tc-mirred(8)).
func redirect(index, to int) nl.Request {
	return newFilter(index, "mirred", func(b []byte) []byte {
		p := make([]byte, 28) // struct tc_mirred
		binary.NativeEndian.PutUint32(p[8:], tcActStolen)
		binary.NativeEndian.PutUint32(p[20:], mirredRedirect)
		binary.NativeEndian.PutUint32(p[24:], uint32(to))
		return nl.AppendAttr(b, mirredParms, p)
	})
}

// police drops what comes in above the limit (tc-police(8)).
func police(index int, m Limit) nl.Request {
	bytes := uint64(m.Rate) / 8
	return newFilter(index, "police", func(b []byte) []byte {
		p := make([]byte, 20, 56) // struct tc_police
		binary.NativeEndian.PutUint32(p[4:], tcActShot)
		binary.NativeEndian.PutUint32(p[12:], burstTicks(m))
		p = appendRateSpec(p, bytes)
		b = nl.AppendAttr(b, policeTBF, p[:cap(p)])
		// The kernel requires the rate table and does not read it: the ticks that
		// 8, 16, ... 2048 bytes take.
		table := make([]byte, 0, 1024)
		for i := range 256 {
			cell := burstTicks(Limit{Rate: m.Rate, Burst: (i + 1) * 8})
			table = binary.NativeEndian.AppendUint32(table, cell)
		}
		b = nl.AppendAttr(b, policeRateTable, table)
		if bytes > math.MaxUint32 {
			b = nl.AppendU64(b, policeRate64, bytes)
		}
		return b
	})
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// tcObject is a qdisc or a filter as the kernel reports it.
type tcObject struct {
	index                int
	handle, parent, info uint32
	kind                 string
	limit                Limit // of a token bucket, or of the policer in a filter
	acts                 bool  // it is a filter with an action
	to                   int   // where a filter redirects to; 0 if that link is gone
}

// decodeTC reads the body of a message about a qdisc or filter.
func decodeTC(o *tcObject, b []byte) error {
	if len(b) < sizeofTcMsg {
		return errShort
	}
	*o = tcObject{
		index:  int(int32(binary.NativeEndian.Uint32(b[4:]))),
		handle: binary.NativeEndian.Uint32(b[8:]),
		parent: binary.NativeEndian.Uint32(b[12:]),
		info:   binary.NativeEndian.Uint32(b[16:]),
	}
	w := nl.Walk(b[sizeofTcMsg:])
	for w.Next() {
		switch w.Type() {
		case tcaKind: // before the options
			o.kind = w.String()
		case tcaOptions:
			var err error
			switch o.kind {
			case "tbf":
				err = o.decodeTBF(w.Nested())
			case "u32":
				err = o.decodeU32(w.Nested())
			}
			if err != nil {
				return err
			}
		}
	}
	return w.Err()
}

func (o *tcObject) decodeTBF(w nl.Walker) error {
	var rate, queue, buffer uint64
	for w.Next() {
		switch w.Type() {
		case tbfParms:
			if p := w.Data(); len(p) >= 36 {
				rate = max(rate, uint64(binary.NativeEndian.Uint32(p[8:])))
				queue = uint64(binary.NativeEndian.Uint32(p[24:]))
				buffer = uint64(binary.NativeEndian.Uint32(p[28:]))
			}
		case tbfRate64:
			rate = w.U64()
		}
	}
	o.limit = limitOf(rate, buffer)
	if rate != 0 && queue > uint64(o.limit.Burst) {
		o.limit.Latency = time.Duration(float64(queue-uint64(o.limit.Burst)) / float64(rate) * float64(time.Second)).Round(time.Microsecond)
	}
	return w.Err()
}

// limitOf computes the burst from the time that it takes.
func limitOf(bytes, ticks uint64) Limit {
	burst := float64(ticks) * float64(bytes) / float64(time.Second/tick)
	return Limit{Rate: Rate(bytes * 8), Burst: int(math.Round(min(burst, math.MaxInt32)))}
}

func (o *tcObject) decodeU32(w nl.Walker) error {
	for w.Next() {
		if w.Type() != u32Act {
			continue
		}
		for acts := w.Nested(); acts.Next(); {
			kind := ""
			for act := acts.Nested(); act.Next(); {
				switch act.Type() {
				case actKind:
					kind = act.String()
				case actOptions:
					o.acts = true
					o.decodeAction(kind, act.Nested())
				}
			}
		}
	}
	return w.Err()
}

func (o *tcObject) decodeAction(kind string, w nl.Walker) {
	var rate, buffer uint64
	for w.Next() {
		p := w.Data()
		switch {
		case kind == "mirred" && w.Type() == mirredParms && len(p) >= 28:
			o.to = int(int32(binary.NativeEndian.Uint32(p[24:])))
		case kind == "police" && w.Type() == policeTBF && len(p) >= 32:
			buffer = uint64(binary.NativeEndian.Uint32(p[12:]))
			rate = max(rate, uint64(binary.NativeEndian.Uint32(p[28:])))
		case kind == "police" && w.Type() == policeRate64:
			rate = w.U64()
		}
	}
	if rate != 0 {
		o.limit = limitOf(rate, buffer)
	}
}
