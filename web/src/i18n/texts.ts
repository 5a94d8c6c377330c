/**
 * A translation has the keys of its model, each a sentence. `const x = {...} satisfies Texts<typeof y>` refuses a key that
 * is missing and one that is too many; parts that are spread in are held to their own models in their own files.
 */
export type Texts<Model> = { [Key in keyof Model]: Model[Key] extends string ? string : Texts<Model[Key]> };
