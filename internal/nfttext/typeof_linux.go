package nfttext

import "encoding/binary"

// typeofText writes the expression that a set's key or data is like, from the userdata in which
// nft keeps it; "" for one that is not known. nft numbers kinds of expressions by its own enum
// expr_types and describes each by pieces that libnftnl names.
func typeofText(b []byte) (s string) {
	const (
		exprPiece, dataPiece = 0, 1     // NFTNL_UDATA_SET_TYPEOF_EXPR, _DATA
		exthdr, meta, ct     = 8, 9, 12 // EXPR_EXTHDR, EXPR_META, EXPR_CT
	)
	kind := uint32(0)
	eachUserdata(b, func(typ byte, v []byte) {
		switch {
		case typ == exprPiece && len(v) == 4:
			kind = binary.NativeEndian.Uint32(v)
		case typ == dataPiece && kind == meta:
			if n, ok := piece(v, 0); ok {
				s = at(metas, "meta", n).name
			}
		case typ == dataPiece && kind == ct:
			s = typeofCT(v)
		case typ == dataPiece && kind == exthdr:
			s = typeofOption(v)
		}
	})
	return s
}

// typeofCT writes a selector of conntrack: its key and perhaps the direction.
func typeofCT(v []byte) string {
	n, ok := piece(v, 0)
	if !ok {
		return ""
	}
	way := ""
	if d, ok := piece(v, 1); ok && d <= 1 {
		way = ctDirections.text(uint64(d)) + " "
	}
	return "ct " + way + at(cts, "ct", n).name
}

// typeofOption writes a field of a TCP option: the number of the option, of the field and of the
// operation.
func typeofOption(v []byte) string {
	const tcpOption = 1 // NFT_EXTHDR_OP_TCPOPT
	option, _ := piece(v, 0)
	field, _ := piece(v, 1)
	if op, _ := piece(v, 2); op != tcpOption || option > 255 {
		return ""
	}
	kind := tcpOptions[byte(option)]
	// nft counts the option's number as 0, its length as 1, and then the fields.
	for offset, n := range map[uint32]uint32{1: 1, 2: 2, 6: 3} {
		if f := kind.fields[offset]; f != "" && n == field {
			return "tcp option " + kind.name + " " + f
		}
	}
	return ""
}

// piece is a number in userdata.
func piece(b []byte, typ byte) (n uint32, ok bool) {
	eachUserdata(b, func(t byte, v []byte) {
		if t == typ && len(v) == 4 {
			n, ok = binary.NativeEndian.Uint32(v), true
		}
	})
	return n, ok
}
