from typing import NamedTuple
import jax, jax.numpy as jnp, optax
from jax import Array
from crl.core import Estimator, PyTree, Readout, num_envs
from crl.nets.mlp import mlp

class State(NamedTuple):
    params: PyTree
    opt: optax.OptState
    mean: Array
    scale: Array

def tcl(num_latents, *, width=64, depth=2, batch_size=512, num_steps=2000, learning_rate=3e-3, weight_decay=0., opt="adam", act="none", per=1):
    net = mlp(num_latents*per, width, depth)
    sched = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimizer = {"adam": optax.adam(sched), "muon": optax.contrib.muon(sched), "adamw": optax.adamw(sched, weight_decay=weight_decay)}[opt]

    def features(params, x):
        h = net.apply(params["net"], x)
        if act=="abs": h=jnp.abs(h)
        if act=="maxout": h=jnp.max(h.reshape(len(h),num_latents,per),-1)
        return h
    def init(key, data):
        k1,k2=jax.random.split(key)
        E=num_envs(data)
        mean=jnp.mean(data.x,0); scale=jnp.std(data.x,0)
        params={"net":net.init(k1,data.x[:1]),"w":jnp.zeros((num_latents,E))+0.1*jax.random.normal(k2,(num_latents,E)),"b":jnp.zeros(E)}
        return State(params,optimizer.init(params),mean,scale)
    def step(key,state,batch):
        x=(batch.x-state.mean)/state.scale
        def loss(p):
            h=features(p,x); logits=h@p["w"]+p["b"]
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits,batch.env)), jnp.mean(jnp.argmax(logits,-1)==batch.env)
        (v,acc),g=jax.value_and_grad(loss,has_aux=True)(state.params)
        u,o=optimizer.update(g,state.opt,state.params)
        return state._replace(params=optax.apply_updates(state.params,u),opt=o),{"loss":v,"acc":acc}
    def readout(state,data):
        x=(data.x-state.mean)/state.scale
        h=features(state.params,x); logits=h@state.params["w"]+state.params["b"]
        return Readout(z=h,diag={"loss":jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits,data.env))})
    return Estimator(init,step,readout,num_steps,batch_size=batch_size)
