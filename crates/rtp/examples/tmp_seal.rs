use aws_lc_rs::aead::*;
use fanlight_rtp::*;
use fanlight_rtp::header::*;
use fanlight_base::Mono;
use std::hint::black_box;
use std::time::Instant;
fn med(name:&str, mut f: impl FnMut(u64)) {
    let n=20000u64; let mut v=vec![];
    let mut k=0u64;
    for _ in 0..41 { let t=Instant::now(); for _ in 0..n { f(k); k+=1; } v.push(t.elapsed().as_nanos() as f64/n as f64); }
    v.sort_by(|a,b|a.total_cmp(b)); eprintln!("{name}\tmin {:.1}\tmed {:.1}", v[0], v[20]);
}
fn main(){
    let key=LessSafeKey::new(UnboundKey::new(&AES_128_GCM,&[7;16]).unwrap());
    let mut buf=vec![5u8;20+1172+16];
    for _ in 0..2 {
    med("bare gcm128 (20 aad +1172)", |k|{ let mut n=[0u8;12]; n[4..].copy_from_slice(&k.to_be_bytes());
        let (h,r)=buf.split_at_mut(20); let (p,t)=r.split_at_mut(1172);
        let tag=key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(n),Aad::from(&*h),p).unwrap(); t.copy_from_slice(tag.as_ref()); black_box(&t); });
    for profile in [SrtpProfile::AeadAes128Gcm,SrtpProfile::AeadAes256Gcm,SrtpProfile::Aes128CmHmacSha1_80] {
        let key=vec![7u8;profile.key_len()]; let salt=vec![3u8;profile.salt_len()];
        let mut s=SrtpSender::new(profile,&key,&salt).unwrap();
        let mut r=SrtpReceiver::new(profile,&key,&salt).unwrap();
        let payload=vec![9u8;1172];
        let mut p=vec![0u8;20+1172+s.overhead()];
        p[0]=0x80;
        med(&format!("{profile:?} seal_rtp"), |k|{ s.seal_rtp(&mut p,20,k).unwrap(); black_box(&p); });
        let mut history=History::new(512);
        let mut slab=Slab::new(1<<20); let slot=slab.insert(&payload);
        let mut log=twcc::SendLog::new();
        let mut out=vec![0u8;1300];
        med(&format!("{profile:?} header+twcc+history+slab copy+seal"), |k|{
            let now=Mono{ns:k*100_000};
            let fields=HeaderFields{marker:false,has_padding:false,payload_type:96,sequence:k as u16,timestamp:k as u32,ssrc:9};
            let mut w=HeaderWriter::new(&mut out,fields,ExtensionForm::OneByte);
            w.transport_cc(3).unwrap(); w.abs_send_time(2).unwrap();
            let wr=w.finish().unwrap();
            let b=slab.get(slot).unwrap(); let end=wr.len+b.len();
            out[wr.len..end].copy_from_slice(b);
            let n=log.record(now,end); patch_transport_cc(&mut out,wr.transport_cc_offset.unwrap(),n); patch_abs_send_time(&mut out,wr.abs_send_time_offset.unwrap(),k as u32);
            s.seal_rtp(&mut out[..end+profile.rtp_overhead()],wr.len,k).unwrap();
            history.push(now,HistoryEntry::new(now,k,k as u32,false,96,slot));
            black_box(&out);
        });
        // open: template packets
        let mut pk=vec![]; 
        for k in 0..60000u64 { let mut p=vec![0u8;20+1172+s.overhead()]; p[0]=0x90;p[12]=0xbe;p[13]=0xde;p[15]=1; p[2..4].copy_from_slice(&(k as u16).to_be_bytes()); s.seal_rtp(&mut p,20,k).unwrap(); pk.push(p); }
        let t=Instant::now(); for p in &mut pk { black_box(r.open_rtp(p).unwrap()); } eprintln!("{profile:?} open (cold memory)\t{:.1}", t.elapsed().as_nanos() as f64/60000.0);
    }}
}
